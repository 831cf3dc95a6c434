//! `edit`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use resources::{AnyResource, Fields, Reference, kind};

use super::create::check;
use crate::api::Api;
use crate::error::{Error, Result};
use crate::output::{complain, say};
use crate::resource::{self, ONCE, Secrets};

/// Variables that name the editor, the first one that is set wins.
const EDITORS: [&str; 3] = ["TELEPORT_EDITOR", "VISUAL", "EDITOR"];

/// Change a resource in an editor.
#[derive(Args, Debug)]
pub struct Edit {
    /// What to change, as kind/name.
    #[arg(value_name = "RESOURCE")]
    resource: Reference,
    /// Let fields pass that this build does not know; they are dropped.
    #[arg(long)]
    force_unknown: bool,
}

impl Edit {
    /// Opens the editor, and writes what was saved there unless somebody else wrote meanwhile.
    pub async fn run(self, api: &Api) -> Result<()> {
        if self.resource.name.is_none() && !ONCE.contains(&self.resource.kind.as_str()) {
            let kind = &self.resource.kind;
            return Err(Error::bad(format!("the full name is missing: expected {kind}/name, see 'tctl get {kind}'")));
        }
        // What is written back has to be whole.
        let secrets = match self.resource.kind.as_str() {
            kind::CERT_AUTHORITY | kind::GITHUB => Secrets::Shown,
            _ => Secrets::Hidden,
        };
        let found = resource::get(api, &self.resource, secrets).await?;
        let [original] = found.as_slice() else {
            return Err(Error::bad(format!("{} means {} resources: name one", self.resource, found.len())));
        };
        let before = resources::to_yaml(std::slice::from_ref(original))?;
        let draft = Draft::new(&original.metadata().name, &before)?;
        run_editor(&draft.path)?;
        let after = draft.text()?;
        if after == before {
            say("edit cancelled: no changes were made\n");
            return Ok(());
        }
        let fields = if self.force_unknown { Fields::Any } else { Fields::Known };
        let written = async {
            let (changed, doubts) = changed(original, &after, fields)?;
            doubts.iter().for_each(|doubt| complain(&format!("WARNING: {doubt}")));
            resource::update(api, changed).await
        };
        match written.await {
            Ok(()) => {
                say(&format!("{} has been updated\n", resource::title(original)));
                Ok(())
            }
            Err(cause) => {
                let done = match draft.keep() {
                    Some(path) => format!("nothing was changed; your text is in {}", path.display()),
                    None => "nothing was changed".to_owned(),
                };
                Err(Error::Partly { cause: Box::new(cause), done })
            }
        }
    }
}

/// The resource that the edited text describes.
fn changed(original: &AnyResource, text: &str, fields: Fields) -> Result<(AnyResource, Vec<String>)> {
    let (mut resources, doubts) = check(text, fields)?;
    let (Some(mut changed), true) = (resources.pop(), resources.is_empty()) else {
        return Err(Error::bad("the text has to stay one resource"));
    };
    if changed.kind() != original.kind() || changed.metadata().name != original.metadata().name {
        return Err(Error::bad(format!(
            "renaming is not supported: {} became {}; use 'tctl create' for another resource",
            original.title(),
            changed.title()
        )));
    }
    // Whatever the text says: what was read is what may be replaced.
    changed.metadata_mut().revision.clone_from(&original.metadata().revision);
    Ok((changed, doubts))
}

/// A file that only its owner reads, in a folder of its own.
struct Draft {
    folder: tempfile::TempDir,
    path: PathBuf,
}

impl Draft {
    fn new(name: &str, text: &str) -> Result<Self> {
        let failed = || Error::io("making a temporary file");
        let folder = tempfile::Builder::new().prefix("tctl-edit-").tempdir().map_err(failed())?;
        let plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
        let path = folder.path().join(format!("{plain}.yaml"));
        fs::write(&path, text).map_err(failed())?;
        Ok(Self { folder, path })
    }

    fn text(&self) -> Result<String> {
        fs::read_to_string(&self.path).map_err(Error::io(format!("reading {}", self.path.display())))
    }

    /// Leaves the file there, so that work is not lost.
    fn keep(self) -> Option<PathBuf> {
        let _ = self.folder.keep();
        self.path.exists().then_some(self.path)
    }
}

fn run_editor(path: &Path) -> Result<()> {
    let set = |name: &&str| env::var(name).ok().filter(|value| !value.trim().is_empty());
    let editor = EDITORS.iter().find_map(set).unwrap_or_else(|| "vi".to_owned());
    // The variable may hold arguments, which a shell takes apart; the file is no part of what it reads.
    let status = Command::new("sh").arg("-c").arg(format!("{editor} \"$1\"")).arg("sh").arg(path).status();
    let status = status.map_err(Error::io(format!("starting the editor {editor:?}")))?;
    match status.success() {
        true => Ok(()),
        false => Err(Error::other(format!("edit cancelled: the editor {editor:?} ended with {status}"))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const ROLE: &str =
        "kind: role\nversion: v7\nmetadata: {name: dev, revision: r1}\nspec: {allow: {logins: [alpha]}}\n";

    fn original() -> AnyResource {
        check(ROLE, Fields::Known).unwrap().0.remove(0)
    }

    #[test]
    fn the_revision_that_was_read_is_the_one_replaced() {
        let text = ROLE.replace("alpha", "omega").replace("r1", "r9");
        let (changed, _) = changed(&original(), &text, Fields::Known).unwrap();
        assert_eq!(changed.metadata().revision, "r1");
    }

    #[test]
    fn a_resource_keeps_its_name_and_stays_one() {
        let said = |text: &str| changed(&original(), text, Fields::Known).unwrap_err().to_string();
        assert!(said(&ROLE.replace("dev", "other")).contains("renaming"));
        assert!(said(&format!("{ROLE}---\n{ROLE}")).contains("one resource"));
        assert!(said("spec: [\n").len() > 10);
        assert!(said(&ROLE.replace("logins", "loginz")).contains("loginz"));
    }

    #[test]
    fn a_draft_is_kept_only_on_request() {
        let draft = Draft::new("../a b", "text").unwrap();
        assert_eq!(
            (draft.text().unwrap(), draft.path.file_name().unwrap().to_str()),
            ("text".into(), Some("___a_b.yaml"))
        );
        let path = draft.path.clone();
        drop(draft);
        assert!(!path.exists());
        let kept = Draft::new("x", "text").unwrap().keep().unwrap();
        assert!(kept.exists());
        fs::remove_dir_all(kept.parent().unwrap()).unwrap();
    }
}
