//! `create`.

use std::io::Read;
use std::path::PathBuf;

use clap::Args;
use resources::{AnyResource, Fields, parse_documents};

use crate::api::Api;
use crate::error::{Error, Result};
use crate::output::{complain, say};
use crate::resource::{self, Permission};

/// Most text that is read: a cluster's whole configuration fits many times over.
const LARGEST: u64 = 64 << 20;

/// Create resources from a file or standard input.
#[derive(Args, Debug)]
pub struct Create {
    /// YAML or JSON; several documents are separated by `---` [default: standard input].
    file: Option<PathBuf>,
    /// Overwrite what exists.
    #[arg(short, long)]
    force: bool,
    /// With --force: also overwrite settings that come from the configuration file.
    #[arg(long)]
    confirm: bool,
    /// Let fields pass that this build does not know; they are dropped.
    #[arg(long)]
    force_unknown: bool,
}

impl Create {
    /// Writes the resources. All of them are checked before the first is written.
    pub async fn run(self, api: &Api) -> Result<()> {
        let fields = if self.force_unknown { Fields::Any } else { Fields::Known };
        let (resources, doubts) = check(&self.text()?, fields)?;
        doubts.iter().for_each(|doubt| complain(&format!("WARNING: {doubt}")));
        let permission = Permission { existing: self.force, configured: self.force && self.confirm };
        let total = resources.len();
        for (done, resource) in resources.into_iter().enumerate() {
            let title = resource::title(&resource);
            let outcome = resource::put(api, resource, permission).await.map_err(|cause| match done {
                0 => cause,
                done => Error::Partly {
                    cause: Box::new(cause),
                    done: format!("{done} of {total} resources were written before, {} were not", total - done),
                },
            })?;
            say(&format!("{title} has been {}\n", outcome.word()));
        }
        Ok(())
    }

    fn text(&self) -> Result<String> {
        let mut text = String::new();
        match &self.file {
            Some(path) => {
                let failed = || Error::io(format!("reading {}", path.display()));
                let file = std::fs::File::open(path).map_err(failed())?;
                file.take(LARGEST).read_to_string(&mut text).map_err(failed())?;
            }
            None => {
                std::io::stdin()
                    .take(LARGEST)
                    .read_to_string(&mut text)
                    .map_err(Error::io("reading standard input"))?;
            }
        }
        Ok(text)
    }
}

/// The resources of a text, and doubts about them.
///
/// # Errors
/// The first resource that must not be stored.
pub fn check(text: &str, fields: Fields) -> Result<(Vec<AnyResource>, Vec<String>)> {
    let resources = parse_documents(text, fields)?;
    let mut doubts = Vec::new();
    for resource in &resources {
        if let AnyResource::Role(role) = resource {
            doubts.extend(resource::check_role(role)?);
        }
    }
    Ok((resources, doubts))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::testing::{Service, State};

    #[test]
    fn a_misspelt_field_is_refused_with_a_suggestion() {
        let text = "kind: role\nversion: v7\nmetadata: {name: dev}\nspec: {allow: {loginz: [root]}}\n";
        let error = check(text, Fields::Known).unwrap_err().to_string();
        assert!(error.contains("spec.allow.loginz") && error.contains("\"logins\""), "{error}");
        assert_eq!(check(text, Fields::Any).unwrap().0.len(), 1);
    }

    #[tokio::test]
    async fn what_was_written_before_a_refusal_is_told() {
        let service = Service::with(State { refused: vec!["b"], ..Default::default() });
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("roles.yaml");
        let role = |name| format!("{{kind: role, version: v7, metadata: {{name: {name}}}, spec: {{}}}}\n---\n");
        std::fs::write(&file, ["a", "b", "c"].map(role).concat()).unwrap();
        let create = Create { file: Some(file), force: true, confirm: false, force_unknown: false };
        let error = create.run(&service.api()).await.unwrap_err().to_string();
        assert_eq!(error, "access denied (1 of 3 resources were written before, 2 were not)");
        assert_eq!(service.0.lock().roles.len(), 1);
    }

    #[test]
    fn one_bad_document_stops_all() {
        let text = "{kind: user, version: v2, metadata: {name: a}, spec: {roles: [access]}}\n---\n\
                    {kind: role, version: v7, metadata: {name: r}, spec: {allow: {node_labels: {env: '^(x$'}}}}\n";
        let error = check(text, Fields::Known).unwrap_err().to_string();
        assert!(error.contains("node_labels"), "{error}");
    }
}
