//! Writes `src/protobuf/messages.z` of `coracle-api`: tag, JSON name and type of every field of every type the API serves.
//! The source is Kubernetes' own Go types, since only they tell a field that may be absent from one that may be zero.
//!
//! Usage: `cargo run -- DIR [--check]`, DIR holding checkouts of `kubernetes/{api,apimachinery,apiextensions-apiserver,
//! kube-aggregator,metrics}`, branch `release-1.36`. With `--check` it writes nothing and fails if the file is stale.

mod go;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use go::{Field, Source, Type};

/// Packages whose kinds are served, with their `apiVersion`.
const PACKAGES: &[(&str, &str)] = &[
    ("k8s.io/api/admissionregistration/v1", "admissionregistration.k8s.io/v1"),
    ("k8s.io/api/apps/v1", "apps/v1"),
    ("k8s.io/api/authentication/v1", "authentication.k8s.io/v1"),
    ("k8s.io/api/authorization/v1", "authorization.k8s.io/v1"),
    ("k8s.io/api/autoscaling/v1", "autoscaling/v1"),
    ("k8s.io/api/autoscaling/v2", "autoscaling/v2"),
    ("k8s.io/api/batch/v1", "batch/v1"),
    ("k8s.io/api/certificates/v1", "certificates.k8s.io/v1"),
    ("k8s.io/api/coordination/v1", "coordination.k8s.io/v1"),
    ("k8s.io/api/core/v1", "v1"),
    ("k8s.io/api/discovery/v1", "discovery.k8s.io/v1"),
    ("k8s.io/api/events/v1", "events.k8s.io/v1"),
    ("k8s.io/api/flowcontrol/v1", "flowcontrol.apiserver.k8s.io/v1"),
    ("k8s.io/api/networking/v1", "networking.k8s.io/v1"),
    ("k8s.io/api/node/v1", "node.k8s.io/v1"),
    ("k8s.io/api/policy/v1", "policy/v1"),
    ("k8s.io/api/rbac/v1", "rbac.authorization.k8s.io/v1"),
    ("k8s.io/api/resource/v1", "resource.k8s.io/v1"),
    ("k8s.io/api/scheduling/v1", "scheduling.k8s.io/v1"),
    ("k8s.io/api/storage/v1", "storage.k8s.io/v1"),
    ("k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1", "apiextensions.k8s.io/v1"),
    ("k8s.io/apimachinery/pkg/apis/meta/v1", "meta.k8s.io/v1"),
    ("k8s.io/kube-aggregator/pkg/apis/apiregistration/v1", "apiregistration.k8s.io/v1"),
    ("k8s.io/metrics/pkg/apis/metrics/v1beta1", "metrics.k8s.io/v1beta1"),
];

/// Types whose JSON is no object of their fields, and the letter the table has for them.
const SPECIAL: &[(&str, &str)] = &[
    ("io.k8s.apimachinery.pkg.apis.meta.v1.Time", "T"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime", "U"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.Duration", "D"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1", "J"),
    ("io.k8s.apimachinery.pkg.api.resource.Quantity", "Q"),
    ("io.k8s.apimachinery.pkg.util.intstr.IntOrString", "O"),
    ("io.k8s.apimachinery.pkg.runtime.RawExtension", "J"),
    ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON", "J"),
];

/// A JSON Schema or something simpler: the letter goes with the number of the schema's own message.
const SCHEMA_OR: &[(&str, &str)] = &[("JSONSchemaPropsOrBool", "P"), ("JSONSchemaPropsOrArray", "A"), ("JSONSchemaPropsOrStringArray", "S")];
const APIEXTENSIONS: &str = "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(directory) = arguments.first() else { bail!("usage: cargo run -- DIR [--check]") };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../src/protobuf/messages.z");
    let mut table = Table { source: Source::new(Path::new(directory)), numbers: BTreeMap::new(), texts: Vec::new() };
    let text = table.build()?;
    if arguments.iter().any(|a| a == "--check") {
        let mut stored = String::new();
        flate2::read::ZlibDecoder::new(std::fs::File::open(&path)?).read_to_string(&mut stored)?;
        ensure!(stored == text, "{} is stale: run this program without --check", path.display());
        return Ok(());
    }
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(text.as_bytes())?;
    let packed = encoder.finish()?;
    println!("{} messages, {} bytes, {} packed", table.texts.len(), text.len(), packed.len());
    std::fs::write(&path, packed).with_context(|| format!("write {}", path.display()))
}

struct Table {
    source: Source,
    numbers: BTreeMap<(String, String), usize>,
    texts: Vec<String>,
}

impl Table {
    fn build(&mut self) -> Result<String> {
        let mut roots = String::new();
        for (package, api_version) in PACKAGES {
            for kind in self.source.kinds(package)? {
                // A kind with no field in protobuf, such as Table, has JSON only.
                if self.source.fields(package, &kind)?.iter().any(|f| f.tag.is_some()) {
                    let number = self.message(package, &kind)?;
                    writeln!(roots, "r {api_version} {kind} {number}")?;
                }
            }
        }
        Ok(self.texts.concat() + &roots)
    }

    /// The number of a struct's message, made on first use.
    fn message(&mut self, package: &str, name: &str) -> Result<usize> {
        let key = (package.to_owned(), name.to_owned());
        if let Some(number) = self.numbers.get(&key) {
            return Ok(*number);
        }
        let number = self.texts.len();
        self.numbers.insert(key, number);
        self.texts.push(String::new());
        let mut fields: Vec<Field> = self.source.fields(package, name)?;
        fields.retain(|f| f.tag.is_some());
        fields.sort_by_key(|f| f.tag);
        let mut text = format!("m {}\n", definition(package, name));
        for field in fields {
            let line = self.field(&field).with_context(|| format!("{package} {name} {}", field.json))?;
            writeln!(text, "{} {line}", field.tag.unwrap_or_default())?;
        }
        self.texts[number] = text;
        Ok(number)
    }

    /// `name`, cardinality (`.` one, `*` list, `%` map), presence (`?` pointer, `0` omitted when empty, `=` always), type.
    fn field(&mut self, field: &Field) -> Result<String> {
        let (mut presence, mut ty) = (if field.omit_empty { '0' } else { '=' }, field.ty.clone());
        if let Type::Pointer(inner) = ty {
            (presence, ty) = ('?', *inner);
        }
        // The word in the tag (`rep`, `opt`) is wrong here and there upstream: the type is what counts. A named list of
        // texts is a message of its own, as protobuf knows no list of lists.
        let named_texts = matches!(ty, Type::Named(..)) && self.source.resolve(&ty)? == Type::List(Box::new(Type::Basic("string")));
        let (cardinality, element) = match self.source.resolve(&ty)? {
            Type::Map(value) => ('%', *value),
            Type::List(item) if *item != Type::Basic("byte") && !named_texts => ('*', *item),
            _ => ('.', ty),
        };
        let element = if let Type::Pointer(inner) = element { *inner } else { element };
        let code = self.code(&element)?;
        if field.json.is_empty() {
            let Some(number) = code.strip_prefix('m') else { bail!("only a message can be inlined") };
            return Ok(format!("- {cardinality}{presence}I{number}"));
        }
        Ok(format!("{} {cardinality}{presence}{code}", field.json))
    }

    fn code(&mut self, ty: &Type) -> Result<String> {
        if let Type::Named(package, name) = ty {
            let definition = definition(package, name);
            if let Some((_, letter)) = SPECIAL.iter().find(|(n, _)| *n == definition) {
                return Ok((*letter).to_owned());
            }
            if let (APIEXTENSIONS, Some((_, letter))) = (package.as_str(), SCHEMA_OR.iter().find(|(n, _)| n == name)) {
                return Ok(format!("{letter}{}", self.message(package, "JSONSchemaProps")?));
            }
        }
        Ok(match self.source.resolve(ty)? {
            Type::Named(package, name) => format!("m{}", self.message(&package, &name)?),
            Type::Basic("string") => "s".to_owned(),
            Type::Basic("bool") => "b".to_owned(),
            Type::Basic("int" | "int32" | "int64" | "uint8" | "uint32") => "i".to_owned(),
            Type::Basic("float64") => "d".to_owned(),
            Type::List(item) if *item == Type::Basic("byte") => "y".to_owned(),
            Type::List(item) if self.source.resolve(&item)? == Type::Basic("string") => "e".to_owned(),
            other => bail!("no code for {other:?}"),
        })
    }
}

/// The name OpenAPI has for a type.
fn definition(package: &str, name: &str) -> String {
    let (host, path) = package.split_once('/').unwrap_or((package, ""));
    let host: Vec<&str> = host.split('.').rev().collect();
    format!("{}.{}.{name}", host.join("."), path.replace('/', "."))
}
