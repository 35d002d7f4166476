//! PodTemplate: a template of pods kept for its own sake.

use k8s_openapi::api::core::v1::PodTemplate;

use super::meta::name_cell;
use super::{pod, workload};
use crate::kind::{Info, Resource};
use crate::table::{Cell, Column};
use crate::validation::{Errors, Path};

impl Resource for PodTemplate {
    const INFO: Info = Info {
        columns: &[
            Column::NAME,
            Column::text("Containers", "Names of each container in the template."),
            Column::text("Images", "Images referenced by each container in the template."),
            Column::text("Pod Labels", "The labels for the pod template."),
        ],
        has_generation: true,
        ..Info::namespaced("podtemplates", "podtemplate")
    };

    fn apply_defaults(&mut self) {
        pod::default_template(self.template.get_or_insert_default());
    }

    fn spec_changed(&self, old: &Self) -> bool {
        self.template != old.template
    }

    fn validate(&self, errors: &mut Errors) {
        let empty = Default::default();
        pod::validate_template(self.template.as_ref().unwrap_or(&empty), &Path::new("template"), errors);
    }

    fn row(&self, _now: jiff::Timestamp) -> Vec<Cell> {
        let empty = Default::default();
        let template = self.template.as_ref().unwrap_or(&empty);
        let labels = template.metadata.as_ref().and_then(|m| m.labels.as_ref());
        vec![
            name_cell(&self.metadata),
            workload::container_names(template).into(),
            workload::container_images(template).into(),
            workload::labels_text(labels).into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{expect, faults, row};

    #[test]
    fn templates() {
        let template = |name: &str| {
            let containers = json!([{"name": name, "image": "i"}, {"name": "b", "image": "j"}]);
            json!({
                "metadata": {"name": "t", "namespace": "n"},
                "template": {"metadata": {"labels": {"k": "v", "l": "w"}}, "spec": {"containers": containers}},
            })
        };
        expect(&faults::<PodTemplate>(template("a")), &[]);
        expect(&faults::<PodTemplate>(template("b")), &["template.spec.containers[1].name: Duplicate value: \"b\""]);
        assert_eq!(row::<PodTemplate>(template("a")), "t|a,b|i,j|k=v,l=w");
        assert_eq!(row::<PodTemplate>(json!({"metadata": {"name": "t"}})), "t|||<none>");
    }
}
