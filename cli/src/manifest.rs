//! Objects from files: YAML or JSON, several in one file, folders, lists, the standard input.

use std::{
    fs,
    io::Read as _,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::Value;

use crate::{
    cluster::{Cluster, NamespaceGiven},
    discovery::{ApiKind, Discovery},
};

/// Largest file that is read; an object may have 3 MiB at most.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;
/// Deepest folder that `-R` goes into.
const MAX_DEPTH: usize = 32;
/// Files of a folder that count.
const EXTENSIONS: [&str; 3] = ["json", "yaml", "yml"];

/// Where objects come from.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Files {
    /// File or folder with objects; `-` is the standard input
    #[arg(long = "filename", short = 'f', value_name = "FILE", value_delimiter = ',')]
    pub filenames: Vec<PathBuf>,

    /// Go into folders of folders
    #[arg(long, short = 'R')]
    pub recursive: bool,
}

/// An object and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    /// The object as it stands in the file.
    pub object: Value,
    /// The file, as it was named.
    pub source: String,
}

/// An object whose kind the server knows.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub kind: ApiKind,
    pub namespace: String,
    pub name: String,
    pub object: Value,
    pub source: String,
}

impl Files {
    pub(crate) fn is_empty(&self) -> bool {
        self.filenames.is_empty()
    }

    /// All objects, in the files' order.
    pub(crate) fn read(&self) -> anyhow::Result<Vec<Manifest>> {
        let mut manifests = Vec::new();
        for name in &self.filenames {
            for file in self.expand(name)? {
                let (text, source) = read(&file)?;
                parse(&text, &source, &mut manifests)?;
            }
        }
        if manifests.is_empty() {
            bail!("no objects passed to apply, create or delete");
        }
        Ok(manifests)
    }

    /// The files of a folder, by name.
    fn expand(&self, name: &Path) -> anyhow::Result<Vec<PathBuf>> {
        if name.as_os_str() == "-" {
            return Ok(vec![name.to_owned()]);
        }
        let text = name.to_string_lossy();
        if text.starts_with("http://") || text.starts_with("https://") {
            bail!("{text}: files come from this machine; fetch it first, as in `curl -L {text} | coracle apply -f -`");
        }
        let Ok(metadata) = fs::metadata(name) else { bail!("the path {text:?} does not exist") };
        if !metadata.is_dir() {
            return Ok(vec![name.to_owned()]);
        }
        let mut files = Vec::new();
        self.walk(name, 0, &mut files)?;
        if files.is_empty() {
            bail!("error reading [{text}]: recognized file extensions are [.json .yaml .yml]");
        }
        Ok(files)
    }

    fn walk(&self, folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
        if depth > MAX_DEPTH {
            bail!("{} is nested too deep", folder.display());
        }
        let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
        let mut paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
        paths.sort();
        for path in paths {
            if path.is_dir() {
                if self.recursive {
                    self.walk(&path, depth + 1, files)?;
                }
            } else if path.extension().is_some_and(|extension| EXTENSIONS.iter().any(|known| extension == *known)) {
                files.push(without_detours(&path));
            }
        }
        Ok(())
    }
}

/// `a/../b` as `b`: so kubectl names the files of a folder.
fn without_detours(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match (part, clean.components().next_back()) {
            (Component::CurDir, _) | (Component::ParentDir, Some(Component::RootDir)) => {}
            (Component::ParentDir, Some(Component::Normal(_))) => _ = clean.pop(),
            _ => clean.push(part),
        }
    }
    clean
}

fn read(file: &Path) -> anyhow::Result<(String, String)> {
    let mut text = String::new();
    if file.as_os_str() == "-" {
        std::io::stdin().take(MAX_FILE_BYTES).read_to_string(&mut text).context("cannot read the standard input")?;
        return Ok((text, "STDIN".to_owned()));
    }
    let source = file.display().to_string();
    let open = fs::File::open(file).with_context(|| format!("cannot open {source}"))?;
    open.take(MAX_FILE_BYTES).read_to_string(&mut text).with_context(|| format!("cannot read {source}"))?;
    Ok((text, source))
}

/// Adds the objects of a text.
pub(crate) fn parse(text: &str, source: &str, manifests: &mut Vec<Manifest>) -> anyhow::Result<()> {
    for document in documents(text, source)? {
        match document["items"].as_array() {
            Some(items) if document["kind"].as_str().is_some_and(|kind| kind.ends_with("List")) => {
                manifests
                    .extend(items.iter().map(|object| Manifest { object: object.clone(), source: source.to_owned() }));
            }
            _ => manifests.push(Manifest { object: document, source: source.to_owned() }),
        }
    }
    Ok(())
}

fn documents(text: &str, source: &str) -> anyhow::Result<Vec<Value>> {
    let start = text.trim_start();
    let documents: Vec<Value> = if start.starts_with('{') {
        let stream = serde_json::Deserializer::from_str(start).into_iter::<Value>();
        match stream.collect() {
            Ok(documents) => documents,
            // YAML's flow style begins with a brace too.
            Err(json) => yaml(text).map_err(|_| anyhow::anyhow!("error parsing {source}: {json}"))?,
        }
    } else {
        yaml(text).map_err(|error| anyhow::anyhow!("error parsing {source}: error converting YAML to JSON: {error}"))?
    };
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

fn yaml(text: &str) -> Result<Vec<Value>, serde_saphyr::Error> {
    serde_saphyr::from_multiple::<Value>(text)
}

impl Manifest {
    /// Finds the object's kind and namespace.
    pub(crate) fn resolve(self, discovery: &Discovery, cluster: &Cluster) -> anyhow::Result<Target> {
        let given = cluster.namespace_given;
        self.resolve_in(discovery, &cluster.namespace, given)
    }

    fn resolve_in(mut self, discovery: &Discovery, namespace: &str, given: NamespaceGiven) -> anyhow::Result<Target> {
        let source = &self.source;
        let text = |field: &str| self.object[field].as_str().unwrap_or_default().to_owned();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        if kind.is_empty() {
            bail!("unable to decode {source:?}: Object 'Kind' is missing in '{}'", self.object);
        }
        if api_version.is_empty() {
            bail!("unable to decode {source:?}: Object 'apiVersion' is missing in '{}'", self.object);
        }
        let metadata = &self.object["metadata"];
        let own = metadata["namespace"].as_str().unwrap_or_default().to_owned();
        let name = metadata["name"].as_str().unwrap_or_default().to_owned();
        let Some(found) = discovery.of(&api_version, &kind) else {
            bail!(
                "resource mapping not found for name: {name:?} namespace: {own:?} from {source:?}: \
                 no matches for kind {kind:?} in version {api_version:?}\nensure CRDs are installed first"
            );
        };
        let found = found.clone();
        let mut target = String::new();
        if found.namespaced {
            if !own.is_empty() && own != namespace && given == NamespaceGiven::ByFlag {
                bail!(
                    "the namespace from the provided object {own:?} does not match the namespace {namespace:?}. \
                     You must pass '--namespace={own}' to perform this operation."
                );
            }
            target = if own.is_empty() { namespace.to_owned() } else { own };
            if self.object["metadata"].is_null() {
                self.object["metadata"] = serde_json::json!({});
            }
            self.object["metadata"]["namespace"] = target.clone().into();
        }
        Ok(Target { kind: found, namespace: target, name, object: self.object, source: self.source })
    }
}

impl Target {
    /// Path of the object.
    pub(crate) fn path(&self) -> String {
        self.kind.object(&self.namespace, &self.name)
    }

    /// Path to create it at.
    pub(crate) fn collection(&self) -> String {
        self.kind.collection(Some(&self.namespace))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::{Files, parse};
    use crate::{cluster::NamespaceGiven, discovery::Discovery};

    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: x\n";

    fn names(text: &str) -> anyhow::Result<Vec<String>> {
        let mut manifests = Vec::new();
        parse(text, "f", &mut manifests)?;
        Ok(manifests
            .iter()
            .map(|manifest| manifest.object["metadata"]["name"].as_str().unwrap_or("?").to_owned())
            .collect())
    }

    #[test]
    fn one_text_may_hold_many() {
        assert_eq!(
            names(&format!("---\n{POD}---\n# nothing\n---\n{}", POD.replace('x', "z"))).expect("valid"),
            ["x", "z"]
        );
        assert_eq!(
            names(r#"{"kind":"Pod","metadata":{"name":"a"}} {"kind":"Pod","metadata":{"name":"b"}}"#).expect("valid"),
            ["a", "b"]
        );
        assert_eq!(
            names("kind: List\napiVersion: v1\nitems:\n- metadata: {name: p}\n- metadata: {name: q}\n").expect("valid"),
            ["p", "q"]
        );
        assert_eq!(names("{kind: Pod, metadata: {name: flow}}").expect("valid"), ["flow"]);
        let error = names("a: [").expect_err("it is cut").to_string();
        assert!(error.starts_with("error parsing f: error converting YAML to JSON:"), "{error}");
    }

    #[test]
    fn yaml_types_are_kubernetes() {
        let mut manifests = Vec::new();
        parse("a: 1\nb: \"1\"\nc: true\nd: null\ne: 1.5\nf: 0x10\ng: |\n  x\n", "f", &mut manifests).expect("valid");
        assert_eq!(
            manifests[0].object,
            serde_json::json!({"a": 1, "b": "1", "c": true, "d": null, "e": 1.5, "f": 16, "g": "x\n"})
        );
    }

    #[test]
    fn folders_are_read_by_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, object: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("it is in a folder")).expect("a folder");
            fs::write(path, POD.replace('x', object)).expect("written");
        };
        write("b.yaml", "b");
        write("a.yml", "a");
        write("notes.txt", "no");
        write("deep/c.json", "c");
        let read = |recursive| {
            let files = Files { filenames: vec![folder.path().to_owned()], recursive };
            let all = files.read().expect("readable");
            all.iter()
                .map(|manifest| manifest.object["metadata"]["name"].as_str().expect("a name").to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(read(false), ["a", "b"]);
        assert_eq!(read(true), ["a", "b", "c"]);
        let missing = Files { filenames: vec![PathBuf::from("no/such")], recursive: false };
        assert_eq!(missing.read().expect_err("it is missing").to_string(), "the path \"no/such\" does not exist");
    }

    #[test]
    fn kinds_and_namespaces_are_found() {
        let resolve = |text: &str, namespace: &str, given| {
            let mut manifests = Vec::new();
            parse(text, "f", &mut manifests).expect("valid");
            manifests.remove(0).resolve_in(&Discovery::sample(), namespace, given)
        };
        let target = resolve(POD, "ns", NamespaceGiven::ByDefault).expect("it is known");
        assert_eq!(target.path(), "/api/v1/namespaces/ns/pods/x");
        assert_eq!(target.object["metadata"]["namespace"], "ns");
        let own = format!("{POD}  namespace: own\n");
        assert_eq!(resolve(&own, "ns", NamespaceGiven::ByDefault).expect("it is known").namespace, "own");
        assert!(resolve(&own, "ns", NamespaceGiven::ByFlag).is_err());
        let node = resolve("apiVersion: v1\nkind: Node\nmetadata: {name: box}\n", "ns", NamespaceGiven::ByFlag)
            .expect("it is known");
        assert_eq!(
            (node.path().as_str(), &node.object["metadata"]["namespace"]),
            ("/api/v1/nodes/box", &serde_json::Value::Null)
        );
        let unknown = resolve("apiVersion: v2\nkind: Foo\nmetadata: {name: box}\n", "ns", NamespaceGiven::ByDefault);
        assert!(
            unknown.expect_err("no such kind").to_string().contains("no matches for kind \"Foo\" in version \"v2\"")
        );
    }
}
