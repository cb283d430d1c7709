//! Writes mails as `.eml` files to a folder, which development and demos use instead of a relay.
//!
//! Invariant: the folder has one complete `.eml` per Message-ID. A file is written under a hidden
//! name and renamed, so a crash leaves no partial mail, and a repeated mail overwrites the first
//! copy instead of adding another.

use std::{
    io,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use tokio::fs;
use uuid::Uuid;

use super::{error::MailError, message::BuiltMail, stage::MailStage};

/// Maximum characters of a Message-ID in a file name; longer ids are distinguished by a digest.
const MAX_STEM_CHARS: usize = 120;

/// Writes the mail to `folder`, which is created if it is missing. Returns the path of the file.
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

/// Removes the hidden file if writing failed or was abandoned; after the rename it does not exist.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A recognisable name, of characters that every file system accepts.
fn file_name(message_id: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@');
    let plain = message_id.len() <= MAX_STEM_CHARS && !message_id.starts_with('.') && message_id.chars().all(safe);
    // Ids with upper case get a digest too, because some file systems treat `A@x` and `a@x` as the
    // same name.
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
