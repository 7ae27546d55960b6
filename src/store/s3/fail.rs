//! What an error of the S3 client means.
//!
//! Owns: the mapping from the SDK's errors, HTTP status and S3 error codes to [`StoreErrorKind`]. The codes are those of
//! Amazon's API reference ("Error responses") and the ones that MinIO, Ceph, Backblaze and Cloudflare add.

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use crate::store::{StoreError, StoreErrorKind};

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// An error, understood.
#[derive(Debug)]
pub(super) struct Verdict {
    /// The class.
    pub(super) kind: StoreErrorKind,
    /// 412: the condition `If-None-Match: *` does not hold.
    pub(super) already_there: bool,
    /// 501: the store does not know something in the request.
    pub(super) not_implemented: bool,
    /// 416: the range begins behind the object's end.
    pub(super) past_the_end: bool,
    /// The store's own words, or ours.
    text: String,
    cause: Option<Cause>,
}

impl Verdict {
    fn new(kind: StoreErrorKind, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { kind, already_there: false, not_implemented: false, past_the_end: false, text, cause: None }
    }

    /// The answer is not what it must be.
    pub(super) fn corrupt(text: &str) -> Self {
        Self::new(StoreErrorKind::Corrupt, text)
    }

    /// The answer did not come, or not whole.
    pub(super) fn short(text: &str) -> Self {
        Self::new(StoreErrorKind::Transient, text)
    }

    /// Passing trouble with a cause.
    pub(super) fn transient(text: &str, cause: impl Into<Cause>) -> Self {
        Self { cause: Some(cause.into()), ..Self::new(StoreErrorKind::Transient, text) }
    }

    /// As the store's error: `doing` says what was being done on which object.
    pub(super) fn error(self, doing: String) -> StoreError {
        let error = StoreError::new(self.kind, format!("{doing}: {}", self.text));
        match self.cause {
            Some(cause) => error.with_source(cause),
            None => error,
        }
    }
}

/// Understands an error of the SDK.
pub(super) fn classify<E>(error: SdkError<E, HttpResponse>) -> Verdict
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    match error {
        SdkError::ServiceError(answer) => {
            let status = answer.raw().status().as_u16();
            let (code, message) = (answer.err().code().unwrap_or_default(), answer.err().message().unwrap_or_default());
            from_answer(status, code, message)
        }
        SdkError::TimeoutError(_) => Verdict::short("no answer within the time limit"),
        SdkError::ResponseError(ref answer) => {
            let text = format!("the answer (HTTP {}) cannot be understood", answer.raw().status().as_u16());
            Verdict { cause: cause_of(error), ..Verdict::short(&text) }
        }
        SdkError::DispatchFailure(_) => not_sent(cause_of(error)),
        other => {
            let cause = cause_of(other);
            let no_key = cause.as_deref().is_some_and(|cause| speaks_of(cause, "credential"));
            let kind = if no_key { StoreErrorKind::Denied } else { StoreErrorKind::Config };
            Verdict { cause, ..Verdict::new(kind, "the request could not be made") }
        }
    }
}

fn cause_of<E>(error: SdkError<E, HttpResponse>) -> Option<Cause>
where
    E: std::error::Error + Send + Sync + 'static,
{
    error.into_source().ok()
}

/// The request did not get as far as an answer.
fn not_sent(cause: Option<Cause>) -> Verdict {
    let speaks_of = |word| cause.as_deref().is_some_and(|cause| speaks_of(cause, word));
    let (kind, text) = if speaks_of("credential") {
        (StoreErrorKind::Denied, "there are no credentials")
    } else if speaks_of("certificate") {
        (StoreErrorKind::Config, "the store's certificate is not trusted (is a CA file missing?)")
    } else {
        (StoreErrorKind::Transient, "the store cannot be reached")
    };
    Verdict { cause, ..Verdict::new(kind, text) }
}

/// The SDK gives no types for these: a word in the chain of causes has to do.
fn speaks_of(error: &(dyn std::error::Error + 'static), word: &str) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.to_string().contains(word) {
            return true;
        }
        next = error.source();
    }
    false
}

fn from_answer(status: u16, code: &str, message: &str) -> Verdict {
    let kind = kind_of_code(code).unwrap_or_else(|| kind_of_status(status));
    let text = match (code, message) {
        ("", _) => format!("the store answers HTTP {status}"),
        (code, "") => format!("the store answers {code} (HTTP {status})"),
        (code, message) => format!("the store answers {code} (HTTP {status}): {message}"),
    };
    Verdict {
        already_there: status == 412 || code == "PreconditionFailed",
        not_implemented: status == 501 || code == "NotImplemented",
        past_the_end: status == 416 || code == "InvalidRange",
        ..Verdict::new(kind, text)
    }
}

fn kind_of_code(code: &str) -> Option<StoreErrorKind> {
    Some(match code {
        "NoSuchKey" | "NotFound" => StoreErrorKind::NotFound,
        "NoSuchBucket" => StoreErrorKind::NoBucket,
        "AccessDenied"
        | "AllAccessDisabled"
        | "AccountProblem"
        | "ExpiredToken"
        | "Forbidden"
        | "InvalidAccessKeyId"
        | "InvalidToken"
        | "MethodNotAllowed"
        | "NotSignedUp"
        | "SignatureDoesNotMatch"
        | "UnauthorizedAccess" => StoreErrorKind::Denied,
        "QuotaExceeded"
        | "XMinioStorageFull"
        | "XMinioAdminBucketQuotaExceeded"
        | "InsufficientStorage"
        | "ServiceQuotaExceededException"
        | "StorageFull" => StoreErrorKind::Full,
        "SlowDown"
        | "SlowDownRead"
        | "SlowDownWrite"
        | "Throttling"
        | "ThrottlingException"
        | "TooManyRequests"
        | "RequestLimitExceeded"
        | "ServiceUnavailable"
        | "BandwidthLimitExceeded" => StoreErrorKind::Throttled,
        // The clock is set right by the SDK for the next try; a digest that does not match is damage on the way.
        "BadDigest"
        | "ConditionalRequestConflict"
        | "IncompleteBody"
        | "InternalError"
        | "OperationAborted"
        | "RequestTimeout"
        | "RequestTimeTooSkewed"
        | "XAmzContentSHA256Mismatch" => StoreErrorKind::Transient,
        "AuthorizationHeaderMalformed"
        | "InvalidBucketName"
        | "InvalidStorageClass"
        | "KeyTooLongError"
        | "NotImplemented"
        | "PermanentRedirect"
        | "InvalidArgument"
        | "InvalidRequest" => StoreErrorKind::Config,
        _ => return None,
    })
}

fn kind_of_status(status: u16) -> StoreErrorKind {
    match status {
        401 | 403 | 405 => StoreErrorKind::Denied,
        404 => StoreErrorKind::NotFound,
        429 | 503 => StoreErrorKind::Throttled,
        507 => StoreErrorKind::Full,
        408 | 409 | 425 => StoreErrorKind::Transient,
        // A moved bucket, a malformed request, what the store does not know.
        301 | 307 | 400 | 411 | 412 | 416 | 501 => StoreErrorKind::Config,
        _ => StoreErrorKind::Transient,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_their_kind() {
        use StoreErrorKind::*;
        let cases = [
            (404, "NoSuchKey", NotFound),
            (404, "", NotFound),
            (404, "NoSuchBucket", NoBucket),
            (403, "AccessDenied", Denied),
            (403, "", Denied),
            (403, "InvalidAccessKeyId", Denied),
            (403, "SignatureDoesNotMatch", Denied),
            (400, "ExpiredToken", Denied),
            (503, "SlowDown", Throttled),
            (503, "", Throttled),
            (429, "", Throttled),
            (500, "InternalError", Transient),
            (502, "", Transient),
            (504, "", Transient),
            (409, "ConditionalRequestConflict", Transient),
            (403, "RequestTimeTooSkewed", Transient),
            (507, "", Full),
            (507, "XMinioStorageFull", Full),
            (403, "QuotaExceeded", Full),
            (400, "InvalidStorageClass", Config),
            (501, "NotImplemented", Config),
        ];
        for (status, code, kind) in cases {
            assert_eq!(from_answer(status, code, "").kind, kind, "{status} {code}");
        }
    }

    #[test]
    fn conditions_ranges_and_foreign_headers_are_recognised() {
        assert!(from_answer(412, "PreconditionFailed", "").already_there);
        assert!(from_answer(412, "", "").already_there);
        assert!(!from_answer(409, "ConditionalRequestConflict", "").already_there);
        assert!(from_answer(501, "NotImplemented", "A header you provided").not_implemented);
        assert!(from_answer(416, "InvalidRange", "").past_the_end);
    }
}
