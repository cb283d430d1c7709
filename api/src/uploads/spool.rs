//! Writing an upload to disk.

use std::io;

use axum::{BoxError, body::Bytes};
use futures::{Stream, StreamExt as _};
use tokio::{
    fs::File,
    io::{AsyncSeekExt as _, AsyncWriteExt as _},
};

use super::UploadPlace;
use crate::problem::{Problem, ProblemCode};

/// A complete upload on disk.
pub struct Spooled {
    file: File,
    _place: UploadPlace,
}

/// Why an upload could not be completed.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The client, or the connection to it, failed.
    #[error("the upload is incomplete")]
    Client(#[source] BoxError),
    /// The uploads of all tenants have reached their limit of bytes.
    #[error("the uploads of all tenants have reached their limit of bytes")]
    NoRoom,
    /// The disk is full, not writable or broken.
    #[error("an upload could not be spooled")]
    Disk(#[source] io::Error),
}

impl UploadPlace {
    /// Writes the body to disk until it ends.
    pub async fn spool<E: Into<BoxError>>(
        mut self,
        body: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<Spooled, SpoolError> {
        let directory = self.directory.clone();
        // Creating a file may block on the disk.
        let file = tokio::task::spawn_blocking(move || tempfile::tempfile_in(&*directory)).await;
        let file = file.map_err(io::Error::other).and_then(|made| made).map_err(SpoolError::Disk)?;
        let mut file = File::from_std(file);
        let mut body = std::pin::pin!(body);
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|error| SpoolError::Client(error.into()))?;
            if !self.grow(chunk.len() as u64) {
                return Err(SpoolError::NoRoom);
            }
            file.write_all(&chunk).await.map_err(SpoolError::Disk)?;
        }
        file.flush().await.map_err(SpoolError::Disk)?;
        Ok(Spooled { file, _place: self })
    }
}

impl Spooled {
    /// Returns a reader at the start of the upload; may be called again.
    pub async fn reader(&mut self) -> Result<&mut File, SpoolError> {
        self.file.rewind().await.map_err(SpoolError::Disk)?;
        Ok(&mut self.file)
    }
}

impl From<SpoolError> for Problem {
    fn from(error: SpoolError) -> Self {
        let code = match &error {
            SpoolError::Client(_) => ProblemCode::BadRequest,
            SpoolError::NoRoom | SpoolError::Disk(_) => ProblemCode::Unavailable,
        };
        Self::new(code).caused_by(error)
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use shared::{config::LimitsConfig, tenancy::TenantId};
    use tokio::io::AsyncReadExt as _;
    use uuid::Uuid;

    use super::*;
    use crate::uploads::Uploads;

    fn uploads(directory: &std::path::Path, spool_bytes: u64) -> Uploads {
        Uploads::new(&LimitsConfig { spool_dir: directory.to_owned(), spool_bytes, ..LimitsConfig::default() })
    }

    fn place(uploads: &Uploads) -> UploadPlace {
        uploads.begin(TenantId::new(Uuid::nil())).expect("a place")
    }

    fn body(chunks: &[&'static str]) -> impl Stream<Item = Result<Bytes, BoxError>> + use<> {
        stream::iter(chunks.iter().map(|chunk| Ok(Bytes::from_static(chunk.as_bytes()))).collect::<Vec<_>>())
    }

    #[tokio::test]
    async fn an_upload_can_be_read_twice_and_leaves_no_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let uploads = uploads(directory.path(), 1 << 20);
        let mut spooled = place(&uploads).spool(body(&["email\n", "a@example.com\n"])).await.expect("spooled");
        for _ in 0..2 {
            let mut text = String::new();
            spooled.reader().await.expect("a reader").read_to_string(&mut text).await.expect("text");
            assert_eq!(text, "email\na@example.com\n");
        }
        assert_eq!(std::fs::read_dir(directory.path()).expect("a directory").count(), 0);
    }

    #[tokio::test]
    async fn bytes_are_bounded_and_a_broken_upload_releases_its_reservation() {
        let directory = tempfile::tempdir().expect("a directory");
        let uploads = uploads(directory.path(), 8);
        assert!(place(&uploads).spool(body(&["12345678"])).await.is_ok());
        assert!(matches!(place(&uploads).spool(body(&["12345678", "9"])).await, Err(SpoolError::NoRoom)));
        let broken = stream::iter([Ok(Bytes::from_static(b"1")), Err(BoxError::from("gone"))]);
        assert!(matches!(place(&uploads).spool(broken).await, Err(SpoolError::Client(_))));
        assert!(place(&uploads).spool(body(&["12345678"])).await.is_ok(), "the counts were released");
    }

    #[tokio::test]
    async fn an_unwritable_directory_is_an_outage() {
        let uploads = uploads(std::path::Path::new("/nowhere/to/be/found"), 8);
        let error = place(&uploads).spool(body(&["1"])).await.err().expect("an error");
        assert!(matches!(error, SpoolError::Disk(_)));
        assert_eq!(Problem::from(error).code(), ProblemCode::Unavailable);
    }
}
