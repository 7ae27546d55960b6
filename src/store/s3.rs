//! A store in an S3 bucket, Amazon's or any other that speaks its protocol.
//!
//! Owns: the requests of the [`Store`] trait and how a name that is taken is noticed. `s3/client.rs` owns the options
//! and the client (credentials, TLS, timeouts), `s3/fail.rs` what an error means.
//!
//! Invariants: an object is one PUT, so it is whole or not there; no answer is read beyond what was asked; a listing is
//! followed to its end or is an error; the SDK tries nothing again by itself (`store/retry.rs` does).
//!
//! Put-if-absent: `If-None-Match: *`. Where the store does not know it (501), each PUT is preceded by a HEAD instead,
//! and that is remembered. A store that silently ignores the header overwrites the object with one of the same name,
//! which is the same object, since names end in the digest of the bytes.

mod client;
mod fail;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{EncodingType, ServerSideEncryption, StorageClass};
use bytes::Bytes;

pub use client::{Checksums, PutIfAbsent, S3Options, Sse};

use self::fail::{Verdict, classify};
use super::{Key, LIST_PAGE_MAX, ListDepth, ListPage, ObjectMeta, Put, Store, StoreError, StoreErrorKind};
use crate::clock;

/// The highest byte offset a range may name: stores read it as a signed number.
const OFFSET_MAX: u64 = i64::MAX.unsigned_abs();

/// A bucket, or a prefix in one, as a store.
#[derive(Debug)]
pub struct S3Store {
    client: Client,
    options: S3Options,
    /// Empty, or ending in `/`.
    prefix: String,
    /// Whether `If-None-Match` is still believed to be understood.
    conditional: AtomicBool,
}

impl S3Store {
    /// Makes the client. Nothing is asked of the store yet; the credential chain may be.
    ///
    /// # Errors
    /// `Config` if the options cannot be used: no region, unreadable CA file, no CA roots.
    pub async fn open(options: S3Options) -> Result<Self, StoreError> {
        let client = client::build(&options).await?;
        let prefix = match options.prefix.trim_matches('/') {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        let conditional = AtomicBool::new(options.put_if_absent != PutIfAbsent::Never);
        Ok(Self { client, options, prefix, conditional })
    }

    fn name(&self, key: &Key) -> String {
        format!("{}{key}", self.prefix)
    }

    fn what(&self, doing: &str, key: &Key) -> String {
        format!("{doing} s3://{}/{}{key}", self.options.bucket, self.prefix)
    }

    fn put_request(&self, key: &Key, body: Bytes) -> PutObjectFluentBuilder {
        let mut request = self
            .client
            .put_object()
            .bucket(&self.options.bucket)
            .key(self.name(key))
            .content_type("application/octet-stream")
            .body(ByteStream::from(body));
        if let Some(class) = &self.options.storage_class {
            request = request.storage_class(StorageClass::from(class.as_str()));
        }
        match &self.options.sse {
            Sse::None => request,
            Sse::Aes256 => request.server_side_encryption(ServerSideEncryption::Aes256),
            Sse::Kms { key_id } => {
                request.server_side_encryption(ServerSideEncryption::AwsKms).set_ssekms_key_id(key_id.clone())
            }
        }
    }

    async fn put_looking_first(&self, key: &Key, body: Bytes) -> Result<Put, StoreError> {
        match self.head_object(key).await {
            Ok(_) => return Ok(Put::AlreadyThere),
            Err(verdict) if verdict.kind == StoreErrorKind::NotFound => {}
            Err(verdict) => return Err(verdict.error(self.what("look at", key))),
        }
        self.put_over(key, body).await.map(|()| Put::Created)
    }

    async fn head_object(&self, key: &Key) -> Result<ObjectMeta, Verdict> {
        let request = self.client.head_object().bucket(&self.options.bucket).key(self.name(key));
        let found = request.send().await.map_err(classify)?;
        let size = found.content_length().and_then(|size| u64::try_from(size).ok());
        let size = size.ok_or_else(|| Verdict::corrupt("the answer has no size"))?;
        Ok(ObjectMeta { key: key.clone(), size, modified_us: found.last_modified().and_then(micros) })
    }

    /// A HEAD has no body, so a missing bucket looks like a missing object: ask for the bucket.
    async fn bucket_is_missing(&self) -> bool {
        let answer = self.client.head_bucket().bucket(&self.options.bucket).send().await;
        answer.is_err_and(|error| {
            let verdict = classify(error);
            matches!(verdict.kind, StoreErrorKind::NotFound | StoreErrorKind::NoBucket)
        })
    }

    async fn get_object(&self, key: &Key, start: u64, length: u64) -> Result<Bytes, Verdict> {
        let last = start.saturating_add(length.saturating_sub(1)).min(OFFSET_MAX);
        let request = self.client.get_object().bucket(&self.options.bucket).key(self.name(key));
        let answer = match request.range(format!("bytes={start}-{last}")).send().await.map_err(classify) {
            Ok(answer) => answer,
            // 416: the object ends before `start`.
            Err(verdict) if verdict.past_the_end => return Ok(Bytes::new()),
            Err(verdict) => return Err(verdict),
        };
        read_body(answer, start, length).await
    }
}

/// Reads the body of an answer: never more than asked, and not less than the answer itself promised.
async fn read_body(mut answer: GetObjectOutput, start: u64, length: u64) -> Result<Bytes, Verdict> {
    let promised = answer.content_length().and_then(|length| u64::try_from(length).ok());
    let ranged = answer.content_range().is_some_and(|range| range.starts_with(&format!("bytes {start}-")));
    if !ranged && (start > 0 || answer.content_range().is_some()) {
        return Err(Verdict::corrupt("the store did not answer with the range that was asked for"));
    }
    let expected = promised.map_or(length, |promised| promised.min(length));
    let expected = usize::try_from(expected).map_err(|_| Verdict::corrupt("the object is too large"))?;
    let mut body = Vec::with_capacity(if promised.is_some() { expected } else { 0 });
    while let Some(part) = answer.body.next().await {
        let part = part.map_err(|error| Verdict::transient("the answer broke off", error))?;
        let room = expected.saturating_sub(body.len());
        body.extend_from_slice(part.get(..room).unwrap_or(&part));
        if body.len() >= expected {
            break;
        }
    }
    if promised.is_some() && body.len() < expected {
        return Err(Verdict::short("the answer is shorter than it promised"));
    }
    Ok(Bytes::from(body))
}

#[async_trait]
impl Store for S3Store {
    fn url(&self) -> String {
        format!("s3://{}/{}", self.options.bucket, self.prefix.trim_end_matches('/')).trim_end_matches('/').to_owned()
    }

    async fn put_new(&self, key: &Key, body: Bytes) -> Result<Put, StoreError> {
        if !self.conditional.load(Ordering::Relaxed) {
            return self.put_looking_first(key, body).await;
        }
        let verdict = match self.put_request(key, body.clone()).if_none_match("*").send().await {
            Ok(_) => return Ok(Put::Created),
            Err(error) => classify(error),
        };
        if verdict.already_there {
            return Ok(Put::AlreadyThere);
        }
        if !verdict.not_implemented || self.options.put_if_absent == PutIfAbsent::Always {
            return Err(verdict.error(self.what("put", key)));
        }
        // The store knows no such header (or something else in the request is foreign to it: then this fails too).
        let put = self.put_looking_first(key, body).await?;
        if self.conditional.swap(false, Ordering::Relaxed) {
            tracing::info!("{} knows no put-if-absent: looking before each put instead", self.url());
        }
        Ok(put)
    }

    async fn put_over(&self, key: &Key, body: Bytes) -> Result<(), StoreError> {
        let answer = self.put_request(key, body).send().await;
        answer.map(|_| ()).map_err(|error| classify(error).error(self.what("put", key)))
    }

    async fn get_range(&self, key: &Key, start: u64, length: u64) -> Result<Bytes, StoreError> {
        if length == 0 || start > OFFSET_MAX {
            return self.head(key).await.map(|_| Bytes::new());
        }
        // The SDK's own limits end when the body begins.
        let limit_ms = self.options.operation_timeout_ms;
        let answer = clock::with_timeout(Duration::from_millis(limit_ms), self.get_object(key, start, length)).await;
        let answer = answer.unwrap_or_else(|| Err(Verdict::short("no whole answer within the operation's time limit")));
        answer.map_err(|verdict| verdict.error(self.what("get", key)))
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        match self.head_object(key).await {
            Ok(found) => Ok(found),
            Err(verdict) if verdict.kind == StoreErrorKind::NotFound && self.bucket_is_missing().await => {
                let message = format!("there is no bucket {}", self.options.bucket);
                Err(StoreError::new(StoreErrorKind::NoBucket, message))
            }
            Err(verdict) => Err(verdict.error(self.what("look at", key))),
        }
    }

    async fn list_page(&self, prefix: &str, depth: ListDepth, after: Option<&str>) -> Result<ListPage, StoreError> {
        let failed =
            |verdict: Verdict| verdict.error(format!("list s3://{}/{}{prefix}", self.options.bucket, self.prefix));
        let mut request = self
            .client
            .list_objects_v2()
            .bucket(&self.options.bucket)
            .prefix(format!("{}{prefix}", self.prefix))
            .encoding_type(EncodingType::Url)
            .max_keys(i32::try_from(LIST_PAGE_MAX).unwrap_or(i32::MAX));
        if depth == ListDepth::OneLevel {
            request = request.delimiter("/");
        }
        request = match after.map(Next::parse) {
            None => request,
            Some(Next::Token(token)) => request.continuation_token(token),
            Some(Next::After(name)) => request.start_after(name),
        };
        let answer = request.send().await.map_err(|error| failed(classify(error)))?;

        let mut page = ListPage::default();
        let mut last = String::new();
        for folder in answer.common_prefixes() {
            let name = decode(folder.prefix().unwrap_or_default());
            // Everything in a folder sorts before its name and the highest character.
            last = last.max(format!("{name}\u{10ffff}"));
            page.folders.extend(name.strip_prefix(&self.prefix).map(str::to_owned));
        }
        for object in answer.contents() {
            let name = decode(object.key().unwrap_or_default());
            let size = object.size().and_then(|size| u64::try_from(size).ok());
            let size = size.ok_or_else(|| failed(Verdict::corrupt("an entry of the listing has no size")))?;
            // What is no key of ours (the empty "folder" objects of some consoles) is none of our objects.
            if let Some(Ok(key)) = name.strip_prefix(&self.prefix).map(Key::new) {
                page.objects.push(ObjectMeta { key, size, modified_us: object.last_modified().and_then(micros) });
            }
            last = last.max(name);
        }
        if answer.is_truncated() == Some(true) {
            page.next = match answer.next_continuation_token() {
                Some(token) => Some(format!("{TOKEN}{token}")),
                None if last.is_empty() => {
                    return Err(failed(Verdict::corrupt("the listing is cut and does not say where it goes on")));
                }
                None => Some(format!("{AFTER}{last}")),
            };
        }
        Ok(page)
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let answer = self.client.delete_object().bucket(&self.options.bucket).key(self.name(key)).send().await;
        match answer.map_err(classify) {
            Ok(_) => Ok(()),
            Err(verdict) if verdict.kind == StoreErrorKind::NotFound => Ok(()),
            Err(verdict) => Err(verdict.error(self.what("remove", key))),
        }
    }

    fn put_new_is_atomic(&self) -> bool {
        self.conditional.load(Ordering::Relaxed)
    }
}

/// How the place is marked where the next page starts.
const TOKEN: &str = "token:";
const AFTER: &str = "after:";

enum Next<'a> {
    /// By the store's own continuation token.
    Token(&'a str),
    /// By the last name, for stores that cut a listing and give no token.
    After(&'a str),
}

impl<'a> Next<'a> {
    fn parse(after: &'a str) -> Self {
        match after.strip_prefix(AFTER) {
            Some(name) => Self::After(name),
            None => Self::Token(after.strip_prefix(TOKEN).unwrap_or(after)),
        }
    }
}

/// Undoes `encoding-type=url`, which keeps XML out of the way of unusual names: `%41` is `A`, `+` is a space.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = [rest.next(), rest.next()].map(|digit| char::from(digit.unwrap_or(b'?')).to_digit(16));
                let [Some(high), Some(low)] = digits else { return text.to_owned() };
                bytes.extend(u8::try_from(high << 4 | low));
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

fn micros(time: &DateTime) -> Option<u64> {
    let seconds = u64::try_from(time.secs()).ok()?;
    seconds.checked_mul(1_000_000)?.checked_add(u64::from(time.subsec_nanos() / 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_listings_are_decoded() {
        assert_eq!(decode("a/b%2Bc+d%C3%A9%3D"), "a/b+c dé=");
        assert_eq!(decode("plain-._~"), "plain-._~");
        for odd in ["%", "%4", "%zz", "%ff"] {
            assert_eq!(decode(odd), odd, "what cannot be decoded stays as it is");
        }
    }

    #[test]
    fn times_are_microseconds() {
        assert_eq!(micros(&DateTime::from_secs_and_nanos(2, 3_000_000)), Some(2_003_000));
        assert_eq!(micros(&DateTime::from_secs(-1)), None);
    }
}
