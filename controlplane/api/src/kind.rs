//! What a kind is: its names, and the rules the API server applies to its objects without knowing which kind they are.
//!
//! A kind implements [`Resource`] in one file of `kinds/` and has one row in [`KINDS`](crate::KINDS). Handlers work on
//! [`Kind`] and `dyn` [`Object`] alone.

use std::any::{Any, TypeId};
use std::borrow::Cow;
use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::status::ResourceName;
use crate::table::{Cell, Column};
use crate::validation::Errors;

/// Whether objects live in a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// In a namespace.
    Namespaced,
    /// In the cluster.
    Cluster,
}

/// The rule for `metadata.name`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameRule {
    /// RFC 1123 subdomain: most kinds.
    Subdomain,
    /// RFC 1123 label: Namespace, and Service since v1.34's relaxed rule.
    Label,
    /// RFC 1035 label.
    Rfc1035Label,
    /// A segment of a URL's path: RBAC kinds.
    PathSegment,
}

/// What hangs below an object's path beside the object itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subresource {
    /// `status`.
    Status,
    /// `scale`, as `autoscaling/v1` Scale.
    Scale,
    /// `pods/binding`.
    Binding,
    /// `pods/eviction`.
    Eviction,
    /// `pods/ephemeralcontainers`.
    EphemeralContainers,
    /// `pods/resize`.
    Resize,
    /// `pods/log`.
    Log,
    /// `pods/exec`.
    Exec,
    /// `pods/attach`.
    Attach,
    /// `pods/portforward`.
    PortForward,
    /// `pods|services|nodes/proxy`.
    Proxy,
    /// `serviceaccounts/token`.
    Token,
    /// `namespaces/finalize`.
    Finalize,
    /// `certificatesigningrequests/approval`.
    Approval,
}

impl Subresource {
    /// The segment of the path.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Scale => "scale",
            Self::Binding => "binding",
            Self::Eviction => "eviction",
            Self::EphemeralContainers => "ephemeralcontainers",
            Self::Resize => "resize",
            Self::Log => "log",
            Self::Exec => "exec",
            Self::Attach => "attach",
            Self::PortForward => "portforward",
            Self::Proxy => "proxy",
            Self::Token => "token",
            Self::Finalize => "finalize",
            Self::Approval => "approval",
        }
    }
}

/// How a kind's objects are kept.
#[derive(Debug, Clone, Copy)]
pub enum Storage {
    /// In the store, under this kind's own collection.
    Own,
    /// In the collection of another version or group of the same objects (`events.k8s.io/v1` Event is a core Event); the
    /// text of one is turned into the text of the other.
    SharedWith {
        /// Group of the kind whose collection it is.
        group: &'static str,
        /// Its version.
        version: &'static str,
        /// From the stored text to this kind's.
        from_stored: fn(&[u8]) -> Result<Vec<u8>, DecodeError>,
        /// From this kind's text to the stored one.
        to_stored: fn(&[u8]) -> Result<Vec<u8>, DecodeError>,
    },
    /// Nowhere: a question that is answered when it is created (the `*Review` kinds).
    Never,
    /// Nowhere: figures that are made when they are asked for. They can be read and listed, and nothing else.
    Measured,
}

/// The constant part of a kind.
#[derive(Debug, Clone, Copy)]
pub struct Info {
    /// Plural name, as in paths.
    pub plural: &'static str,
    /// Singular name.
    pub singular: &'static str,
    /// `po`, `svc`.
    pub short_names: &'static [&'static str],
    /// `all` for kinds that `kubectl get all` shows.
    pub categories: &'static [&'static str],
    /// Scope.
    pub scope: Scope,
    /// Rule for names.
    pub name_rule: NameRule,
    /// Subresources.
    pub subresources: &'static [Subresource],
    /// How it is kept.
    pub storage: Storage,
    /// Columns of its table.
    pub columns: &'static [Column],
    /// Field selectors it knows beside `metadata.name` and `metadata.namespace`.
    pub selectable_fields: &'static [&'static str],
    /// `metadata.generation` counts the changes of its spec.
    pub has_generation: bool,
    /// The object may be written with no `resourceVersion` and created by PUT, as Kubernetes allows for some kinds.
    pub create_on_update: bool,
    /// A PUT must name the version it replaces: who holds a Lease, or what a budget has left, is decided by the version
    /// (`AllowUnconditionalUpdate` of the strategies of Kubernetes' registries).
    pub needs_version: bool,
    /// All its objects can be deleted at once. Namespaces cannot: one wrong call would empty a cluster.
    pub has_delete_collection: bool,
    /// Something acts on its objects. Whoever makes one of another kind is told: a policy that is believed in and does
    /// nothing is worse than one that is refused.
    pub is_acted_on: bool,
    /// Its objects are read in decoded form by those who follow them, so that the form made by a write is kept for them.
    pub is_followed: bool,
    /// Why it should not be used any more; every answer about it says so (`APILifecycleDeprecated`).
    pub deprecation: Option<&'static str>,
    /// A deletion that names no propagation policy orphans what the object owns, as old clients expect of a few kinds.
    pub orphans_by_default: bool,
    /// A deletion is answered with the object as it last was, not with a `Status`.
    pub returns_deleted: bool,
}

impl Info {
    /// A namespaced kind kept in the store with no subresource, named by a subdomain.
    #[must_use]
    pub const fn namespaced(plural: &'static str, singular: &'static str) -> Self {
        Self {
            plural,
            singular,
            short_names: &[],
            categories: &[],
            scope: Scope::Namespaced,
            name_rule: NameRule::Subdomain,
            subresources: &[],
            storage: Storage::Own,
            columns: &[Column::NAME, Column::CREATED_AT],
            selectable_fields: &[],
            has_generation: false,
            create_on_update: false,
            needs_version: false,
            has_delete_collection: true,
            is_acted_on: true,
            is_followed: true,
            deprecation: None,
            orphans_by_default: false,
            returns_deleted: false,
        }
    }

    /// The same in the cluster's scope.
    #[must_use]
    pub const fn cluster(plural: &'static str, singular: &'static str) -> Self {
        Self { scope: Scope::Cluster, ..Self::namespaced(plural, singular) }
    }
}

/// A kind's rules over its `k8s-openapi` type. Every method has the answer of a kind without that rule.
pub trait Resource:
    k8s_openapi::Resource
    + k8s_openapi::Metadata<Ty = ObjectMeta>
    + Serialize
    + DeserializeOwned
    + Clone
    + Debug
    + Default
    + PartialEq
    + Send
    + Sync
    + 'static
{
    /// Names and the like.
    const INFO: Info;

    /// Fills what the client left out (`zz_generated.defaults.go` of Kubernetes).
    fn apply_defaults(&mut self) {}

    /// Resets what a client cannot set at creation: mostly the status (`PrepareForCreate`).
    fn prepare_create(&mut self) {}

    /// Resets what a client cannot set by a plain update: mostly the status (`PrepareForUpdate`).
    fn prepare_update(&mut self, _old: &Self) {}

    /// Makes of an update of `status` an object that differs from `old` in its status alone. Metadata is the server's work.
    fn prepare_status_update(&mut self, _old: &Self) {}

    /// Whether `metadata.generation` must grow from `old` to `self`.
    fn spec_changed(&self, _old: &Self) -> bool {
        false
    }

    /// The rules for a new object, metadata apart.
    fn validate(&self, _errors: &mut Errors) {}

    /// The rules for a new object that a changed one need not keep.
    fn validate_create(&self, _errors: &mut Errors) {}

    /// The rules for a change beside those of [`Resource::validate`]: immutable fields.
    fn validate_update(&self, _old: &Self, _errors: &mut Errors) {}

    /// The rules for a change of the status.
    fn validate_status_update(&self, _old: &Self, _errors: &mut Errors) {}

    /// The rules for a change through one of the narrow subresources (`pods/resize`, `pods/ephemeralcontainers`); what else
    /// the client changed has been put back already.
    fn validate_subresource_update(&self, _subresource: Subresource, _old: &Self, _errors: &mut Errors) {}

    /// How long a deletion waits for whoever runs the object to finish, in seconds, given what the client asked for; `None`
    /// for kinds that are removed at once (`CheckGracefulDelete`).
    fn grace_period_seconds(&self, _requested: Option<i64>) -> Option<i64> {
        None
    }

    /// What a deletion that must wait shows in the object, beside its metadata (a Namespace's phase).
    fn begin_deletion(&mut self) {}

    /// Whether something beside `metadata.finalizers` holds the deletion up (a Namespace's `spec.finalizers`).
    fn holds_deletion(&self) -> bool {
        false
    }

    /// Things a client is told of by a `Warning` header (deprecated or useless fields).
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// The value of one of [`Info::selectable_fields`]; empty when unset.
    fn selectable_field(&self, _name: &str) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    /// The cells of its row, one for each of [`Info::columns`].
    fn row(&self, _now: jiff::Timestamp) -> Vec<Cell> {
        let meta = self.metadata();
        let created = meta.creation_timestamp.as_ref().map_or(Cell::Null, |t| t.0.to_string().into());
        vec![meta.name.clone().unwrap_or_default().into(), created]
    }
}

/// An object of some kind. Every [`Resource`] is one.
pub trait Object: Any + Debug + Send + Sync {
    /// Its metadata.
    fn meta(&self) -> &ObjectMeta;
    /// Its metadata, to change.
    fn meta_mut(&mut self) -> &mut ObjectMeta;
    /// The same object as its concrete type.
    fn as_any(&self) -> &dyn Any;
    /// The same object as its concrete type, to change.
    fn as_any_mut(&mut self) -> &mut dyn Any;
    /// A copy.
    fn boxed_clone(&self) -> Box<dyn Object>;
    /// Its JSON.
    fn encode(&self) -> Vec<u8>;
    /// [`Resource::apply_defaults`].
    fn apply_defaults(&mut self);
    /// [`Resource::prepare_create`].
    fn prepare_create(&mut self);
    /// [`Resource::prepare_update`]. `old` is of the same kind.
    fn prepare_update(&mut self, old: &dyn Object);
    /// [`Resource::prepare_status_update`].
    fn prepare_status_update(&mut self, old: &dyn Object);
    /// [`Resource::spec_changed`].
    fn spec_changed(&self, old: &dyn Object) -> bool;
    /// [`Resource::validate`].
    fn validate(&self, errors: &mut Errors);
    /// [`Resource::validate_create`].
    fn validate_create(&self, errors: &mut Errors);
    /// [`Resource::validate_update`].
    fn validate_update(&self, old: &dyn Object, errors: &mut Errors);
    /// [`Resource::validate_status_update`].
    fn validate_status_update(&self, old: &dyn Object, errors: &mut Errors);
    /// [`Resource::validate_subresource_update`].
    fn validate_subresource_update(&self, subresource: Subresource, old: &dyn Object, errors: &mut Errors);
    /// [`Resource::grace_period_seconds`].
    fn grace_period_seconds(&self, requested: Option<i64>) -> Option<i64>;
    /// [`Resource::begin_deletion`].
    fn begin_deletion(&mut self);
    /// [`Resource::holds_deletion`].
    fn holds_deletion(&self) -> bool;
    /// [`Resource::warnings`].
    fn warnings(&self) -> Vec<String>;
    /// [`Resource::selectable_field`].
    fn selectable_field(&self, name: &str) -> Cow<'_, str>;
    /// [`Resource::row`].
    fn row(&self, now: jiff::Timestamp) -> Vec<Cell>;
    /// Whether both are equal, metadata too.
    fn equals(&self, other: &dyn Object) -> bool;
}

fn same_kind<T: Resource>(old: &dyn Object) -> &T {
    old.as_any().downcast_ref().expect("the server compares objects of one kind only")
}

impl<T: Resource> Object for T {
    fn meta(&self) -> &ObjectMeta {
        self.metadata()
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.metadata_mut()
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
    fn boxed_clone(&self) -> Box<dyn Object> {
        Box::new(self.clone())
    }
    fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("API types hold no map with keys that are no text")
    }
    fn apply_defaults(&mut self) {
        Resource::apply_defaults(self);
    }
    fn prepare_create(&mut self) {
        Resource::prepare_create(self);
    }
    fn prepare_update(&mut self, old: &dyn Object) {
        Resource::prepare_update(self, same_kind(old));
    }
    fn prepare_status_update(&mut self, old: &dyn Object) {
        Resource::prepare_status_update(self, same_kind(old));
    }
    fn spec_changed(&self, old: &dyn Object) -> bool {
        Resource::spec_changed(self, same_kind(old))
    }
    fn validate(&self, errors: &mut Errors) {
        Resource::validate(self, errors);
    }
    fn validate_create(&self, errors: &mut Errors) {
        Resource::validate_create(self, errors);
    }
    fn validate_update(&self, old: &dyn Object, errors: &mut Errors) {
        Resource::validate_update(self, same_kind(old), errors);
    }
    fn validate_status_update(&self, old: &dyn Object, errors: &mut Errors) {
        Resource::validate_status_update(self, same_kind(old), errors);
    }
    fn validate_subresource_update(&self, subresource: Subresource, old: &dyn Object, errors: &mut Errors) {
        Resource::validate_subresource_update(self, subresource, same_kind(old), errors);
    }
    fn grace_period_seconds(&self, requested: Option<i64>) -> Option<i64> {
        Resource::grace_period_seconds(self, requested)
    }
    fn begin_deletion(&mut self) {
        Resource::begin_deletion(self);
    }
    fn holds_deletion(&self) -> bool {
        Resource::holds_deletion(self)
    }
    fn warnings(&self) -> Vec<String> {
        Resource::warnings(self)
    }
    fn selectable_field(&self, name: &str) -> Cow<'_, str> {
        Resource::selectable_field(self, name)
    }
    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        Resource::row(self, now)
    }
    fn equals(&self, other: &dyn Object) -> bool {
        other.as_any().downcast_ref::<T>() == Some(self)
    }
}

/// A text that is no object of the kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DecodeError(pub String);

/// An object of some kind as its readers share it: an `Arc<T>`.
pub type Shared = Arc<dyn Any + Send + Sync>;

/// A row of the table of kinds.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// API group, empty for the core group.
    pub group: &'static str,
    /// Version.
    pub version: &'static str,
    /// `v1`, `apps/v1`.
    pub api_version: &'static str,
    /// `Pod`.
    pub kind: &'static str,
    /// `PodList`; empty for a kind with no lists.
    pub list_kind: &'static str,
    /// Names and the like.
    pub info: Info,
    /// The type of its objects.
    type_id: TypeId,
    read: Read,
    read_shared: fn(&[u8]) -> Result<Shared, DecodeError>,
    object: fn(&(dyn Any + Send + Sync)) -> Option<&dyn Object>,
    boxed: Unbox,
}

/// Reads an object of one kind.
type Read = fn(&[u8]) -> Result<Box<dyn Object>, DecodeError>;
/// The object in a box, if it is of one kind.
type Unbox = fn(Box<dyn Any + Send + Sync>) -> Option<Box<dyn Object>>;

impl Kind {
    /// The row of `T`.
    #[must_use]
    pub const fn of<T: Resource + k8s_openapi::ListableResource>() -> Self {
        Self { list_kind: T::LIST_KIND, ..Self::unlisted::<T>() }
    }

    /// The row of `T`, of which there is no list: the `*Review` kinds. Its list kind is empty.
    #[must_use]
    pub const fn unlisted<T: Resource>() -> Self {
        Self {
            group: T::GROUP,
            version: T::VERSION,
            api_version: T::API_VERSION,
            kind: T::KIND,
            list_kind: "",
            info: T::INFO,
            type_id: TypeId::of::<T>(),
            read: |json| read::<T>(json).map(|t| Box::new(t) as _),
            read_shared: |json| read::<T>(json).map(|t| Arc::new(t) as _),
            object: |any| any.downcast_ref::<T>().map(|t| t as &dyn Object),
            boxed: |any| any.downcast::<T>().ok().map(|t| t as Box<dyn Object>),
        }
    }

    /// Reads an object from JSON a client sent; fields it does not have are dropped, of fields that stand twice the last
    /// counts. [`strict::problems`](crate::strict::problems) names them.
    ///
    /// # Errors
    /// The text is no JSON, or a field has the wrong type.
    pub fn decode(&self, json: &[u8]) -> Result<Box<dyn Object>, DecodeError> {
        (self.read)(json)
    }

    /// Reads an object from JSON this server wrote, in the shape in which readers share it: `Arc<T>`. Its `managedFields`,
    /// which no reader has a use for, are left out.
    ///
    /// # Errors
    /// The text is not what this server wrote.
    pub fn decode_shared(&self, json: &[u8]) -> Result<Shared, DecodeError> {
        (self.read_shared)(&crate::managed::without(json))
    }

    /// The object inside what [`Kind::decode_shared`] gave; `None` if it is of another kind.
    #[must_use]
    pub fn object<'a>(&self, shared: &'a Shared) -> Option<&'a dyn Object> {
        (self.object)(shared.as_ref())
    }

    /// Group and plural, as errors print them.
    #[must_use]
    pub const fn resource(&self) -> ResourceName<'static> {
        ResourceName { group: self.group, plural: self.info.plural }
    }

    /// The store's collection: `/registry/<group or core>/<plural>/`, that of the kind it shares with if it does.
    #[must_use]
    pub fn collection(&self) -> String {
        let group = match self.info.storage {
            Storage::SharedWith { group, .. } => group,
            Storage::Own | Storage::Never | Storage::Measured => self.group,
        };
        format!("/registry/{}/{}/", if group.is_empty() { "core" } else { group }, self.info.plural)
    }

    /// Whether its objects live in a namespace.
    #[must_use]
    pub const fn namespaced(&self) -> bool {
        matches!(self.info.scope, Scope::Namespaced)
    }

    /// Whether it has the subresource.
    #[must_use]
    pub fn has(&self, subresource: Subresource) -> bool {
        self.info.subresources.contains(&subresource)
    }
}

/// Never inlined, so that both rows share what the type's reader becomes in here.
#[inline(never)]
fn read<T: Resource>(json: &[u8]) -> Result<T, DecodeError> {
    serde_json::from_slice(json).map_err(|e| DecodeError(e.to_string()))
}

/// The row of a type. Whoever knows the type of his objects goes through it to read and write them: the readers and writers
/// that serde makes for the types are by far the largest part of the program, and so they are made in this crate alone.
///
/// # Panics
/// The type has no row. Every type that implements [`Resource`] has one.
#[must_use]
pub fn row_of<T: Resource>() -> &'static Kind {
    let id = TypeId::of::<T>();
    let row = crate::KINDS.iter().find(|kind| kind.type_id == id);
    row.unwrap_or_else(|| panic!("{} {} has no row in the table of kinds", T::API_VERSION, T::KIND))
}

/// [`Kind::decode_shared`] for a type that is known.
///
/// # Errors
/// The text is no object of the type.
pub fn decode<T: Resource>(json: &[u8]) -> Result<Arc<T>, DecodeError> {
    let shared = row_of::<T>().decode_shared(json)?;
    Ok(shared.downcast().expect("a row reads objects of its own type"))
}

/// An object as one of some kind.
pub fn object<T: Resource>(object: &T) -> &dyn Object {
    (row_of::<T>().object)(object).expect("a row knows objects of its own type")
}

/// An object as one of some kind, to keep.
#[must_use]
pub fn boxed<T: Resource>(object: T) -> Box<dyn Object> {
    (row_of::<T>().boxed)(Box::new(object)).expect("a row knows objects of its own type")
}

/// The JSON of an object.
#[must_use]
pub fn encode<T: Resource>(of: &T) -> Vec<u8> {
    object(of).encode()
}
