//! Who may do what: pure decisions from roles, traits and labels.
//!
//! [`RoleSet`] is the roles of one identity, expanded with its traits. Its methods answer questions with a
//! [`Decision`] that always carries its reason. Nothing here does I/O or reads a clock; moments are passed in.
//!
//! What holds for every decision:
//! - a role that denies decides over all that allow, and adding a denying field never allows more;
//! - the order of roles does not matter;
//! - a role that selects nothing that fits changes nothing about access to a resource;
//! - what comes from a user or a resource is compared as it is and never read as a pattern;
//! - what cannot be evaluated allows nothing where it stands in `allow` and denies where it stands in `deny`.

mod access;
mod builtin;
mod decision;
mod fields;
mod filter;
mod impersonation;
mod labelled;
mod labels;
pub mod language;
mod lint;
mod lists;
mod locks;
mod mapping;
mod moderation;
mod node;
mod options;
mod pattern;
mod requests;
mod review;
mod role;
mod role_set;
mod rules;
mod template;
mod traits;

pub use access::{AccessState, Ask, Explanation, FieldCheck, ResourcePermit, RoleExplanation, Target};
pub use builtin::{builtin_role, builtin_roles};
pub use decision::{Cause, Decision, Denial, Permit};
pub use fields::{LabelField, ListField};
pub use filter::{FilterError, Filtered, ResourceFilter};
pub use impersonation::Impersonated;
pub use labelled::Labelled;
pub use labels::Labels;
pub use lint::{Problem, lint_role};
pub use lists::{ListCandidate, ListGrants, ListStanding, MAX_LIST_DEPTH, list_grants, list_standing};
pub use locks::{LockSubject, lock_denial, lock_in_force, lock_matches, lock_targets, stale_locks_denial};
pub use mapping::{CertificateNames, map_roles, remote_traits, remote_user_name};
pub use moderation::{JoinMode, OnLeave, Participant, SessionOwner, SessionPolicies, StartDecision};
pub use node::{HostUser, HostUserMode, SshPermit};
pub use options::{CertificateFormat, KeyPolicy, MfaRequired, Options, RequestOptions, RolesOnMfa, Strictness};
pub use pattern::Pattern;
pub use requests::{Thresholds, Wish};
pub use review::reviewed_state;
pub use role::{ParsedRole, Role};
pub use role_set::{CertificateLogins, RoleSet};
pub use rules::RuleContext;
pub use template::{Matcher, Template};
pub use traits::Traits;
