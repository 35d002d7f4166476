//! As much of Go as the declarations of Kubernetes' types need: structs with tags, named types, imports.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// A type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    Basic(&'static str),
    /// Package and name.
    Named(String, String),
    Pointer(Box<Type>),
    List(Box<Type>),
    /// The type of the values; the keys are text.
    Map(Box<Type>),
}

/// A field of a struct.
#[derive(Debug, Clone)]
pub struct Field {
    /// Its number in protobuf, if it has one.
    pub tag: Option<u32>,
    /// Its name in JSON; empty for the inlined.
    pub json: String,
    pub omit_empty: bool,
    pub ty: Type,
}

enum Declaration {
    Struct(Vec<Field>),
    Alias(Type),
}

/// Packages, read when first asked for.
pub struct Source {
    directory: PathBuf,
    packages: BTreeMap<String, BTreeMap<String, Declaration>>,
}

const BASIC: &[&str] = &["string", "bool", "int", "int32", "int64", "uint8", "uint32", "float64", "byte"];

impl Source {
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), packages: BTreeMap::new() }
    }

    /// The structs of a package that have a `TypeMeta`.
    pub fn kinds(&mut self, package: &str) -> Result<Vec<String>> {
        let is_kind = |d: &Declaration| match d {
            Declaration::Struct(fields) => fields.iter().any(|f| {
                f.json.is_empty() && matches!(&f.ty, Type::Named(_, name) if name == "TypeMeta")
            }),
            Declaration::Alias(_) => false,
        };
        Ok(self.package(package)?.iter().filter(|(_, d)| is_kind(d)).map(|(n, _)| n.clone()).collect())
    }

    pub fn fields(&mut self, package: &str, name: &str) -> Result<Vec<Field>> {
        match self.package(package)?.get(name) {
            Some(Declaration::Struct(fields)) => Ok(fields.clone()),
            _ => bail!("{package} has no struct {name}"),
        }
    }

    /// The type behind a name, unless it is a struct.
    pub fn resolve(&mut self, ty: &Type) -> Result<Type> {
        let Type::Named(package, name) = ty else { return Ok(ty.clone()) };
        match self.package(package)?.get(name) {
            Some(Declaration::Struct(_)) => Ok(ty.clone()),
            Some(Declaration::Alias(to)) => {
                let to = to.clone();
                self.resolve(&to)
            }
            None => bail!("{package} has no type {name}"),
        }
    }

    fn package(&mut self, package: &str) -> Result<&BTreeMap<String, Declaration>> {
        if !self.packages.contains_key(package) {
            let directory = self.directory.join(package.trim_start_matches("k8s.io/"));
            let mut declarations = BTreeMap::new();
            let mut files: Vec<PathBuf> = std::fs::read_dir(&directory)
                .with_context(|| format!("read {}", directory.display()))?
                .filter_map(|e| Some(e.ok()?.path()))
                .collect();
            files.sort();
            for file in files {
                let name = file.file_name().and_then(|n| n.to_str()).unwrap_or_default();
                if name.ends_with(".go") && !name.ends_with("_test.go") && !name.contains("generated") {
                    read_file(package, &std::fs::read_to_string(&file)?, &mut declarations)
                        .with_context(|| format!("in {}", file.display()))?;
                }
            }
            self.packages.insert(package.to_owned(), declarations);
        }
        Ok(&self.packages[package])
    }
}

fn read_file(package: &str, text: &str, out: &mut BTreeMap<String, Declaration>) -> Result<()> {
    let mut imports = BTreeMap::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some((alias, path)) = import(line) {
            imports.insert(alias, path);
        }
        let Some(declared) = line.strip_prefix("type ") else { continue };
        let Some((name, what)) = declared.split_once(' ') else { continue };
        let what = what.split("//").next().unwrap_or_default().trim();
        if what == "struct {" {
            let body: Vec<&str> = lines.by_ref().take_while(|l| *l != "}").collect();
            let fields = body.iter().filter_map(|l| field(package, l, &imports)).collect();
            out.insert(name.to_owned(), Declaration::Struct(fields));
        } else if what == "struct{}" {
            out.insert(name.to_owned(), Declaration::Struct(Vec::new()));
        } else if let Some(ty) = parse(package, what.trim_start_matches("= "), &imports) {
            out.insert(name.to_owned(), Declaration::Alias(ty));
        }
    }
    Ok(())
}

/// `metav1 "k8s.io/..."`, with or without its own name.
fn import(line: &str) -> Option<(String, String)> {
    let line = line.trim().trim_start_matches("import ").trim();
    let (alias, rest) = line.split_once('"')?;
    let path = rest.strip_suffix('"')?;
    let own = alias.trim();
    (path.starts_with("k8s.io/") && own.chars().all(|c| c.is_ascii_alphanumeric())).then(|| {
        let alias = if own.is_empty() { path.rsplit('/').next().unwrap_or(path) } else { own };
        (alias.to_owned(), path.to_owned())
    })
}

fn field(package: &str, line: &str, imports: &BTreeMap<String, String>) -> Option<Field> {
    if line.trim_start().starts_with("//") {
        return None;
    }
    let mut parts = line.split('`');
    let words: Vec<&str> = parts.next()?.split_whitespace().collect();
    let tags = parts.next()?;
    let ty = match words[..] {
        [embedded] => embedded,
        [_, ty] => ty,
        _ => return None,
    };
    let ty = parse(package, ty, imports)?;
    let json = tag(tags, "json").unwrap_or_default();
    let mut words = json.split(',');
    let name = words.next().unwrap_or_default();
    let omit_empty = words.any(|w| w == "omitempty" || w == "omitzero");
    let protobuf = tag(tags, "protobuf").unwrap_or_default();
    let number = protobuf.split(',').nth(1).and_then(|t| t.parse().ok());
    Some(Field { tag: number, json: name.to_owned(), omit_empty, ty })
}

fn tag<'a>(tags: &'a str, name: &str) -> Option<&'a str> {
    let start = tags.find(&format!("{name}:\""))? + name.len() + 2;
    tags[start..].split('"').next()
}

fn parse(package: &str, text: &str, imports: &BTreeMap<String, String>) -> Option<Type> {
    let boxed = |t: &str| parse(package, t, imports).map(Box::new);
    if let Some(inner) = text.strip_prefix('*') {
        return boxed(inner).map(Type::Pointer);
    }
    if let Some(inner) = text.strip_prefix("[]") {
        return boxed(inner).map(Type::List);
    }
    if let Some(rest) = text.strip_prefix("map[") {
        return boxed(rest.split_once(']')?.1).map(Type::Map);
    }
    if let Some(basic) = BASIC.iter().find(|b| **b == text) {
        return Some(Type::Basic(basic));
    }
    let plain = |t: &str| !t.is_empty() && t.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    match text.split_once('.') {
        Some((alias, name)) if plain(name) => Some(Type::Named(imports.get(alias)?.clone(), name.to_owned())),
        None if plain(text) => Some(Type::Named(package.to_owned(), text.to_owned())),
        _ => None,
    }
}
