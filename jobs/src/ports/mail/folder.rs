//! Mails as `.eml` files in a folder: what development and demos use in place of a relay.
//!
//! Invariant: the folder has one complete `.eml` per Message-ID. A file is written under a dot name and renamed, so a
//! crash leaves no half mail, and a repeat of a mail overwrites the first copy instead of adding one.

use std::{
    io,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use tokio::fs;
use uuid::Uuid;

use super::{
    error::{MailError, MailStage},
    message::BuiltMail,
};

/// Characters of a Message-ID kept in a file name; beyond, a digest tells names apart.
const MAX_STEM_CHARS: usize = 120;

/// Writes the mail into `folder`, which is made if it is missing. Returns the path of the file.
pub(super) async fn store(folder: &Path, mail: &BuiltMail) -> Result<String, MailError> {
    let path = folder.join(file_name(&mail.message_id));
    write(folder, &path, &mail.octets)
        .await
        .map_err(|error| MailError::transient(MailStage::File, format!("{}: {error}", path.display())))?;
    Ok(path.display().to_string())
}

async fn write(folder: &Path, path: &Path, octets: &[u8]) -> io::Result<()> {
    fs::create_dir_all(folder).await?;
    let unfinished = Unfinished(folder.join(format!(".{}.tmp", Uuid::new_v4())));
    fs::write(&unfinished.0, octets).await?;
    fs::rename(&unfinished.0, path).await
}

/// Removes the file under its dot name when writing failed or was abandoned; after the rename it finds nothing.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A name that a person recognises, made of characters that every file system takes.
fn file_name(message_id: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@');
    let plain = message_id.len() <= MAX_STEM_CHARS && !message_id.starts_with('.') && message_id.chars().all(safe);
    // Upper case is digested too: on some file systems `A@x` and `a@x` are one name.
    if plain && !message_id.bytes().any(|b| b.is_ascii_uppercase()) {
        return format!("{message_id}.eml");
    }
    let stem: String = message_id.chars().take(MAX_STEM_CHARS).map(|c| if safe(c) { c } else { '_' }).collect();
    let digest = Sha256::digest(message_id.as_bytes());
    format!("{}-{}.eml", stem.trim_start_matches('.'), data_encoding::HEXLOWER.encode(&digest[..8]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_stable_distinct_and_inside_the_folder() {
        assert_eq!(file_name("0190-ab@rota.example"), "0190-ab@rota.example.eml");
        let ids = ["a/../b@x", "a_.._b@x", "../../etc@x", "A@x", "a@x", ".a@x", &"y".repeat(300), &"y".repeat(301)];
        let names: std::collections::HashSet<_> = ids.iter().map(|id| file_name(id)).collect();
        assert_eq!(names.len(), ids.len());
        assert!(names.iter().all(|name| !name.contains('/') && !name.starts_with('.') && name.len() < 200));
    }
}
