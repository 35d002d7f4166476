//! Profiles: under which name a pod asks for which filters and weights.

use std::sync::Arc;

use crate::filter::{FILTERS, FilterSet};
use crate::pod::DEFAULT_SCHEDULER;
use crate::score::{SCORES, Score};

/// Under this many nodes, all are looked at.
const MIN_FEASIBLE: usize = 100;
/// At least this percentage of a large cluster is looked at.
const MIN_PERCENTAGE: usize = 5;

/// How many of the nodes that can take a pod are enough to choose from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampling {
    /// Half of a small cluster, down to 5 % of a large one.
    Adaptive,
    /// This percentage; 100 and more looks at all.
    Percentage(u8),
}

impl Sampling {
    /// How many nodes to find in a cluster of `nodes` (`numFeasibleNodesToFind`).
    pub fn enough(self, nodes: usize) -> usize {
        if nodes < MIN_FEASIBLE {
            return nodes;
        }
        let percentage = match self {
            Self::Percentage(p) => usize::from(p),
            Self::Adaptive => 50_usize.saturating_sub(nodes / 125).max(MIN_PERCENTAGE),
        };
        if percentage >= 100 { nodes } else { (nodes * percentage / 100).max(MIN_FEASIBLE) }
    }
}

/// A named set of filters and weights.
#[derive(Clone)]
pub struct Profile {
    /// What a pod writes in `spec.schedulerName`.
    pub name: Arc<str>,
    /// The filters that are asked.
    pub filters: FilterSet,
    /// How much of the cluster is looked at.
    pub sampling: Sampling,
    weights: [i64; SCORES.len()],
}

/// A profile cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// No plugin has this name.
    #[error("no plugin is named {0:?}")]
    UnknownPlugin(String),
    /// Two profiles have one name.
    #[error("duplicate profile with scheduler name {0:?}")]
    Duplicate(String),
}

impl Default for Profile {
    fn default() -> Self {
        Self::named(DEFAULT_SCHEDULER)
    }
}

impl Profile {
    /// The default filters and weights under a name.
    pub fn named(name: &str) -> Self {
        let mut weights = [0; SCORES.len()];
        weights.iter_mut().zip(SCORES).for_each(|(w, score)| *w = score.weight);
        Self { name: name.into(), filters: FilterSet::all(), sampling: Sampling::Adaptive, weights }
    }

    /// The same profile without a filter.
    pub fn without_filter(mut self, name: &str) -> Result<Self, ProfileError> {
        let unknown = || ProfileError::UnknownPlugin(name.to_owned());
        self.filters.remove(FILTERS.iter().position(|f| f.name == name).ok_or_else(unknown)?);
        Ok(self)
    }

    /// The same profile with another weight for a scorer; with zero it is not asked.
    pub fn with_weight(mut self, name: &str, weight: u32) -> Result<Self, ProfileError> {
        let unknown = || ProfileError::UnknownPlugin(name.to_owned());
        self.weights[SCORES.iter().position(|s| s.name == name).ok_or_else(unknown)?] = weight.into();
        Ok(self)
    }

    /// The scorers that are asked, with their weights.
    pub fn scores(&self) -> impl Iterator<Item = (&'static Score, i64)> {
        SCORES.iter().zip(self.weights).filter(|(_, weight)| *weight > 0).map(|(score, weight)| (*score, weight))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sampling_as_upstream() {
        for (sampling, nodes, expect) in [
            (Sampling::Adaptive, 10, 10),
            (Sampling::Adaptive, 99, 99),
            (Sampling::Adaptive, 100, 100),
            (Sampling::Adaptive, 1000, 420),
            (Sampling::Adaptive, 5000, 500),
            (Sampling::Adaptive, 6000, 300),
            (Sampling::Percentage(40), 1000, 400),
            (Sampling::Percentage(5), 1000, 100),
            (Sampling::Percentage(100), 1000, 1000),
        ] {
            assert_eq!(sampling.enough(nodes), expect, "{sampling:?} of {nodes}");
        }
    }

    #[test]
    fn weights_and_filters_can_be_changed() {
        let profile = Profile::named("p").with_weight("ImageLocality", 0).and_then(|p| p.without_filter("NodePorts"));
        let profile = profile.expect("both plugins exist");
        assert!(profile.scores().all(|(s, _)| s.name != "ImageLocality"));
        assert!(profile.filters.names().all(|n| n != "NodePorts"));
        assert_eq!(Profile::named("p").with_weight("Nope", 1).err(), Some(ProfileError::UnknownPlugin("Nope".into())));
    }
}
