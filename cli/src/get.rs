//! `coracle get`: shows objects, and what happens to them with `-w`. The server makes the tables; this lines them up.

mod rows;

use clap::Args;
use futures::StreamExt as _;
use serde_json::Value;

use crate::{
    cluster::{AS_TABLE, Call, Change, Cluster},
    discovery::{ApiKind, Discovery},
    failure::{self, AlreadySaid, Refused},
    manifest::Files,
    output::{Count, Headers, ManagedFields, Output, Shown, render},
    print::{jsonpath::JsonPath, table},
    target::{self, Wanted},
};

use rows::{Layout, Rows};

/// Objects in one answer, as kubectl asks for them.
const CHUNK: u32 = 500;

/// Shows objects.
#[derive(Debug, Args)]
pub(crate) struct Get {
    /// KIND [NAME…], KIND/NAME… or KIND,KIND
    #[arg(value_name = "KIND[/NAME]")]
    words: Vec<String>,

    #[command(flatten)]
    files: Files,

    /// Objects of all namespaces
    #[arg(long, short = 'A')]
    all_namespaces: bool,

    /// Labels to select by, as in `app=hello,tier!=db`
    #[arg(long, short = 'l', value_name = "SELECTOR")]
    selector: Option<String>,

    /// Fields to select by, as in `status.phase=Running`
    #[arg(long, value_name = "SELECTOR")]
    field_selector: Option<String>,

    /// wide, name, json, yaml, jsonpath=…, custom-columns=…
    #[arg(long, short = 'o', value_name = "FORM")]
    output: Option<Output>,

    /// Go on showing what changes
    #[arg(long, short = 'w')]
    watch: bool,

    /// Show what changes, not what is there
    #[arg(long)]
    watch_only: bool,

    /// Show labels in a last column
    #[arg(long)]
    show_labels: bool,

    /// Show these labels in columns of their own
    #[arg(long, short = 'L', value_name = "LABEL", value_delimiter = ',')]
    label_columns: Vec<String>,

    /// Show each object's kind
    #[arg(long)]
    show_kind: bool,

    /// Leave the line of headings out
    #[arg(long)]
    no_headers: bool,

    /// Sort by what a JSONPath finds, as in `.metadata.name`
    #[arg(long, value_name = "PATH")]
    sort_by: Option<String>,

    /// It is no error when a named object is missing
    #[arg(long)]
    ignore_not_found: bool,

    /// Show managed fields in json and yaml
    #[arg(long)]
    show_managed_fields: bool,

    /// Show the answer to a GET of this path
    #[arg(long, value_name = "PATH")]
    raw: Option<String>,
}

impl Get {
    pub(crate) async fn run(self, cluster: &Cluster) -> anyhow::Result<()> {
        if let Some(path) = &self.raw {
            print!("{}", cluster.text(Call::get(path.clone()).accept("application/json, */*")).await?);
            return Ok(());
        }
        let discovery = Discovery::fetch(cluster).await?;
        let wanted = self.wanted(cluster, &discovery)?;
        if self.watch || self.watch_only {
            return self.watch(cluster, &wanted).await;
        }
        match &self.output {
            None | Some(Output::Wide) => self.tables(cluster, &wanted).await,
            Some(output) => self.objects(cluster, &wanted, output).await,
        }
    }

    /// What is asked for: a kind, and the namespace and name of one object or none.
    fn wanted(&self, cluster: &Cluster, discovery: &Discovery) -> anyhow::Result<Vec<Request>> {
        let request =
            |wanted: Wanted| Request { kind: wanted.kind, namespace: cluster.namespace.clone(), name: wanted.name };
        if !self.files.is_empty() {
            anyhow::ensure!(
                self.words.is_empty(),
                "when paths, URLs, or stdin is provided as input, you may not specify resource arguments as well"
            );
            let targets = self.files.read()?.into_iter().map(|manifest| manifest.resolve(discovery, cluster));
            let request = |target: crate::manifest::Target| Request {
                kind: target.kind,
                namespace: target.namespace,
                name: Some(target.name),
            };
            return targets.map(|target| target.map(request)).collect();
        }
        let wanted: Vec<Request> = target::resolve(&self.words, discovery)?.into_iter().map(request).collect();
        if wanted.iter().any(|request| request.name.is_some()) {
            anyhow::ensure!(!self.all_namespaces, "a resource cannot be retrieved by name across all namespaces");
            anyhow::ensure!(
                self.selector.is_none() && self.field_selector.is_none(),
                "name cannot be provided when a selector is specified"
            );
        }
        Ok(wanted)
    }

    fn call(&self, request: &Request, accept: &str) -> Call {
        let call = match &request.name {
            Some(name) => Call::get(request.kind.object(&request.namespace, name)),
            None => Call::get(self.collection(request))
                .maybe("labelSelector", self.selector.as_deref())
                .maybe("fieldSelector", self.field_selector.as_deref())
                .query("limit", CHUNK),
        };
        // The rows' metadata is enough, unless something else is sorted by.
        let whole = self.sort_by.is_some() && accept == AS_TABLE;
        call.accept(accept).maybe("includeObject", whole.then_some("Object"))
    }

    fn collection(&self, request: &Request) -> String {
        request.kind.collection((!self.all_namespaces).then_some(request.namespace.as_str()))
    }

    /// All answers to a request: one, or the chunks of a list.
    async fn fetch(&self, cluster: &Cluster, request: &Request, accept: &str) -> anyhow::Result<Vec<Value>> {
        let call = self.call(request, accept);
        let first = cluster.json(call.clone()).await;
        let mut answers = vec![first.map_err(|error| self.with_selectors(error, request))?];
        if request.name.is_some() {
            return Ok(answers);
        }
        while let Some(token) =
            answers.last().and_then(|answer| answer["metadata"]["continue"].as_str()).filter(|token| !token.is_empty())
        {
            let next = call.clone().query("continue", token);
            answers.push(cluster.json(next).await?);
        }
        Ok(answers)
    }

    /// What was selected by, where the server makes nothing of it.
    fn with_selectors(&self, error: anyhow::Error, request: &Request) -> anyhow::Error {
        let (labels, fields) =
            (self.selector.as_deref().unwrap_or_default(), self.field_selector.as_deref().unwrap_or_default());
        match error.downcast::<Refused>() {
            Ok(mut refused) if request.name.is_none() && matches!(refused.reason(), "BadRequest" | "NotFound") => {
                let kind = &request.kind;
                let resource = format!("{}/{}, Resource={}", kind.group, kind.version, kind.plural);
                let message = refused.status.message.take().unwrap_or_default();
                refused.status.message = Some(if labels.is_empty() && fields.is_empty() {
                    format!("Unable to list {resource:?}: {message}")
                } else {
                    format!(
                        "Unable to find {resource:?} that match label selector {labels:?}, field selector {fields:?}: {message}"
                    )
                });
                refused.into()
            }
            Ok(refused) => refused.into(),
            Err(other) => other,
        }
    }

    async fn tables(&self, cluster: &Cluster, wanted: &[Request]) -> anyhow::Result<()> {
        let mut tables: Vec<(ApiKind, Rows)> = Vec::new();
        let mut problems = Vec::new();
        for request in wanted {
            let answers = match self.fetch(cluster, request, AS_TABLE).await {
                Ok(answers) => answers,
                Err(error) if self.ignore_not_found && failure::is_not_found(&error) => continue,
                Err(error) => {
                    problems.push(error);
                    continue;
                }
            };
            for answer in answers {
                match tables.last_mut() {
                    Some((kind, rows)) if *kind == request.kind => rows.add(&answer),
                    _ => tables.push((request.kind.clone(), Rows::new(&answer))),
                }
            }
        }
        let with_kind = self.show_kind || tables.iter().any(|(kind, _)| *kind != tables[0].0);
        tables.retain(|(_, rows)| !rows.is_empty());
        for (at, (kind, rows)) in tables.iter_mut().enumerate() {
            if let Some(path) = &self.sort_by {
                rows.sort(&JsonPath::relaxed(path)?)?;
            }
            if at > 0 {
                println!();
            }
            let layout = self.layout(kind, with_kind);
            let mut lines = if self.no_headers { Vec::new() } else { vec![layout.header(rows)] };
            lines.extend(layout.lines(rows));
            print!("{}", table::Table::new(table::OBJECTS).render(&lines));
        }
        if tables.is_empty() && problems.is_empty() && !self.ignore_not_found {
            self.say_nothing_found(cluster, wanted);
        }
        say_all(problems)
    }

    fn layout<'a>(&'a self, kind: &'a ApiKind, with_kind: bool) -> Layout<'a> {
        Layout {
            kind_prefix: with_kind.then_some(kind),
            wide: self.output == Some(Output::Wide),
            namespace: self.all_namespaces && kind.namespaced,
            labels: self.show_labels,
            label_columns: &self.label_columns,
        }
    }

    fn say_nothing_found(&self, cluster: &Cluster, wanted: &[Request]) {
        let in_namespace = !self.all_namespaces && wanted.iter().any(|request| request.kind.namespaced);
        if in_namespace {
            eprintln!("No resources found in {} namespace.", cluster.namespace);
        } else {
            eprintln!("No resources found");
        }
    }

    async fn objects(&self, cluster: &Cluster, wanted: &[Request], output: &Output) -> anyhow::Result<()> {
        let managed = self.managed_fields();
        let mut objects = Vec::new();
        let mut problems = Vec::new();
        for request in wanted {
            let answers = match self.fetch(cluster, request, "application/json").await {
                Ok(answers) => answers,
                Err(error) if self.ignore_not_found && failure::is_not_found(&error) => continue,
                Err(error) => {
                    problems.push(error);
                    continue;
                }
            };
            for mut answer in answers {
                match answer.get_mut("items").map(Value::take) {
                    Some(Value::Array(items)) if request.name.is_none() => {
                        objects.extend(items.into_iter().map(|item| Shown::new(&request.kind, item, managed)));
                    }
                    _ => objects.push(Shown::new(&request.kind, answer, managed)),
                }
            }
        }
        if let Some(path) = &self.sort_by {
            let path = JsonPath::relaxed(path)?;
            rows::sort_by_path(&mut objects, &path, |shown| &shown.object)?;
        }
        let count = if matches!(wanted, [request] if request.name.is_some()) { Count::One } else { Count::List };
        let nothing = count == Count::One && objects.is_empty();
        if !nothing {
            let headers = if self.no_headers { Headers::Hidden } else { Headers::Shown };
            print!("{}", render(output, &objects, count, headers)?);
        }
        say_all(problems)
    }

    fn managed_fields(&self) -> ManagedFields {
        if self.show_managed_fields { ManagedFields::Shown } else { ManagedFields::Hidden }
    }

    async fn watch(&self, cluster: &Cluster, wanted: &[Request]) -> anyhow::Result<()> {
        let [request] = wanted else { anyhow::bail!("you may only specify a single resource type") };
        let accept = if matches!(self.output, None | Some(Output::Wide)) { AS_TABLE } else { "application/json" };
        let mut call =
            Call::get(self.collection(request)).accept(accept).maybe("labelSelector", self.selector.as_deref());
        call = match &request.name {
            Some(name) => call.query("fieldSelector", format!("metadata.name={name}")),
            None => call.maybe("fieldSelector", self.field_selector.as_deref()),
        };
        let list = cluster.json(call.clone()).await?;
        let found = list["rows"].as_array().or_else(|| list["items"].as_array()).map_or(0, Vec::len);
        if let (Some(_), 0) = (&request.name, found) {
            // The server says it best.
            cluster.json(self.call(request, "application/json")).await?;
        }
        let mut printer = Printer::new(self, request);
        if !self.watch_only {
            printer.list(&list)?;
        }
        let version = list["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        let mut changes = cluster.watch(call, version).await?;
        while let Some(change) = changes.next().await {
            match change? {
                (Change::Bookmark, _) => {}
                (_, object) => printer.change(object)?,
            }
        }
        Ok(())
    }
}

/// Objects that are asked for.
#[derive(Debug, Clone)]
struct Request {
    kind: ApiKind,
    namespace: String,
    name: Option<String>,
}

/// Says each problem; the last decides the exit code.
fn say_all(problems: Vec<anyhow::Error>) -> anyhow::Result<()> {
    if problems.is_empty() {
        return Ok(());
    }
    for problem in &problems {
        if let Some(text) = failure::explain(problem) {
            eprintln!("{text}");
        }
    }
    Err(AlreadySaid.into())
}

/// Shows changes one after the other, in columns that stay.
struct Printer<'a> {
    get: &'a Get,
    request: &'a Request,
    table: table::Table,
    head: Option<Rows>,
}

impl<'a> Printer<'a> {
    fn new(get: &'a Get, request: &'a Request) -> Self {
        Self { get, request, table: table::Table::new(table::OBJECTS), head: None }
    }

    fn list(&mut self, list: &Value) -> anyhow::Result<()> {
        if list["rows"].is_array() {
            return self.rows(list);
        }
        list["items"].as_array().into_iter().flatten().try_for_each(|item| self.object(item.clone()))
    }

    fn change(&mut self, object: Value) -> anyhow::Result<()> {
        if object["kind"] == "Table" { self.rows(&object) } else { self.object(object) }
    }

    fn rows(&mut self, answer: &Value) -> anyhow::Result<()> {
        let layout = self.get.layout(&self.request.kind, self.get.show_kind);
        let mut lines = Vec::new();
        let rows = match &mut self.head {
            Some(head) => {
                head.replace(answer);
                head
            }
            None => {
                let rows = self.head.insert(Rows::new(answer));
                if !self.get.no_headers && !rows.is_empty() {
                    lines.push(layout.header(rows));
                }
                rows
            }
        };
        lines.extend(layout.lines(rows));
        if lines.is_empty() {
            // An empty list has shown no headings; the first change does.
            self.head = None;
        }
        print!("{}", self.table.render(&lines));
        Ok(())
    }

    fn object(&mut self, object: Value) -> anyhow::Result<()> {
        let Some(output) = &self.get.output else { return Ok(()) };
        let shown = Shown::new(&self.request.kind, object, self.get.managed_fields());
        if *output == Output::Yaml {
            println!("---");
        }
        let text = render(output, &[shown], Count::One, Headers::Hidden)?;
        print!("{text}");
        Ok(())
    }
}
