//! The questions about identity of `authentication.k8s.io`: whose token is this, and who am I. They are answered when they
//! are created and kept nowhere; their `status` is the server's answer.

use k8s_openapi::api::authentication::v1::{SelfSubjectReview, TokenReview};

use crate::kind::{Info, Resource, Storage};

impl Resource for TokenReview {
    const INFO: Info = Info { storage: Storage::Never, ..Info::cluster("tokenreviews", "tokenreview") };

    fn prepare_create(&mut self) {
        self.status = None;
    }
}

impl Resource for SelfSubjectReview {
    const INFO: Info = Info { storage: Storage::Never, ..Info::cluster("selfsubjectreviews", "selfsubjectreview") };

    fn prepare_create(&mut self) {
        self.status = None;
    }
}
