//! Reads and writes what nodes ask each other: a length, then JSON, neither longer than a bound.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Bytes of the largest message: everything that is remembered fits.
pub(crate) const FRAME_MAX: usize = 24 << 20;
const _: () = assert!(
    FRAME_MAX
        > crate::state::ENTRIES_BYTES_MAX
            + crate::state::HISTORY_BYTES_MAX
            + 8 * crate::state::EDIT_BYTES_MAX
);

pub(crate) async fn read<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<T> {
    let length = stream.read_u32().await? as usize;
    if length > FRAME_MAX {
        return Err(io::Error::other(format!("a message of {length} bytes is too long")));
    }
    let mut bytes = Vec::new();
    // It grows with what comes, not with what is promised.
    let read = stream.take(length as u64).read_to_end(&mut bytes).await?;
    if read < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    serde_json::from_slice(&bytes).map_err(io::Error::other)
}

pub(crate) async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &impl Serialize,
) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    let length = u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= FRAME_MAX);
    let length = length.ok_or_else(|| io::Error::other("the message is too long"))?;
    stream.write_u32(length).await?;
    stream.write_all(&bytes).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_comes_whole_or_not_at_all() {
        let mut bytes = Vec::new();
        write(&mut bytes, &vec!["a", "b"]).await.unwrap();
        assert_eq!(read::<Vec<String>>(&mut bytes.as_slice()).await.unwrap(), ["a", "b"]);
        for cut in 0..bytes.len() {
            assert!(read::<Vec<String>>(&mut &bytes[..cut]).await.is_err(), "{cut}");
        }
        let promised = u32::MAX.to_be_bytes();
        assert!(read::<Vec<String>>(&mut promised.as_slice()).await.is_err());
        let deep = "[".repeat(10_000);
        let mut bytes = (deep.len() as u32).to_be_bytes().to_vec();
        bytes.extend_from_slice(deep.as_bytes());
        assert!(read::<serde_json::Value>(&mut bytes.as_slice()).await.is_err());
    }
}
