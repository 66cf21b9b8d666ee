//! One transfer: a request, the rest of a file, whatever goes wrong on the way.

use std::{
    io::{ErrorKind, Read, Write},
    path::Path,
    time::{Duration, Instant},
};

use ureq::{
    Agent, Body, Error, Timeout,
    http::{HeaderMap, Response, StatusCode, Uri, header},
    tls::{PemItem, RootCerts, TlsConfig, parse_pem},
};

use super::{
    Fetch, masked,
    part::{Origin, Part},
};
use crate::DataError;

/// How often an address may point to another.
const MOST_REDIRECTS: usize = 5;

/// Bytes that are read at once.
const CHUNK: usize = 1 << 16;

/// Fewer bytes than this in the time of a stall are one: a server must not hold the program for a day with a byte every
/// few seconds.
const SLOWEST: u64 = 1 << 10;

/// Longest file of certificates that is read.
const MOST_CERTIFICATES: u64 = 16 << 20;

/// Why a transfer ended early.
#[derive(Debug)]
pub(super) enum Stop {
    /// This mirror will not give the file.
    Mirror(String),
    /// It may, the next time; `after` is when the server would like to be asked again.
    Passing { why: String, after: Option<Duration> },
    /// The file cannot be written here.
    Here(DataError),
}

/// Asks servers.
pub(super) struct Client<'a> {
    agent: Agent,
    fetch: &'a Fetch,
}

/// What a transfer is told by, as it goes: bytes that lie in the file, and its length if the server says so.
pub(super) type Tell<'a> = dyn FnMut(u64, Option<u64>) + 'a;

impl<'a> Client<'a> {
    /// # Errors
    /// If there is a file of certificates, and it cannot be read.
    pub(super) fn new(fetch: &'a Fetch) -> Result<Self, DataError> {
        let mut tls = TlsConfig::builder();
        if let Some(path) = &fetch.certificates {
            tls = tls.root_certs(certificates(path)?);
        }
        let config = Agent::config_builder()
            // a failure is an answer here, and redirects are followed by hand: each may need another proxy
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .timeout_resolve(Some(fetch.connect_timeout))
            .timeout_connect(Some(fetch.connect_timeout))
            .timeout_send_request(Some(fetch.stall_timeout))
            .timeout_recv_response(Some(fetch.stall_timeout))
            .timeout_per_read(Some(fetch.stall_timeout))
            .tls_config(tls.build());
        Ok(Self { agent: config.build().new_agent(), fetch })
    }

    /// Brings `part` to the end of what lies at `url`, from where it is if it comes from there. At most `longest` bytes are
    /// ever in it. Gives how many came now.
    pub(super) fn transfer(
        &self,
        url: &str,
        part: &Part,
        longest: u64,
        tell: &mut Tell<'_>,
    ) -> Result<u64, Stop> {
        let before = part.origin().filter(|origin| origin.url == masked(url));
        let mut at = if before.is_some() { part.len() } else { 0 };
        if before.as_ref().is_some_and(|origin| origin.total == Some(at)) {
            tell(at, Some(at));
            return Ok(0);
        }
        let response = self.ask(url, before.as_ref().map(|origin| (at, origin.validator.as_deref())))?;
        let here = |error| here(&part.path, error);
        let headers = response.headers();
        let (mut file, total) = match response.status() {
            StatusCode::PARTIAL_CONTENT if before.is_some() => {
                let origin = before.unwrap_or_default();
                let (from, total) = content_range(headers).unwrap_or((u64::MAX, None));
                let same = origin.total.is_none() || total.is_none() || origin.total == total;
                let same_version = origin.validator.is_none()
                    || validator(headers).is_none()
                    || origin.validator == validator(headers);
                if from != at || !same || !same_version {
                    part.discard();
                    return Err(passing("sends another part than was asked for, or of another file"));
                }
                (part.go_on().map_err(here)?, total.or(origin.total))
            }
            StatusCode::RANGE_NOT_SATISFIABLE if before.is_some() => {
                // the file there is shorter, or another: from the beginning
                part.discard();
                return Err(passing("has no more of the file than is here, which was not all"));
            }
            StatusCode::OK => {
                let total = length(headers);
                if total.is_some_and(|total| total > longest) {
                    return Err(Stop::Mirror(format!(
                        "would send {} bytes where at most {longest} are expected",
                        total.unwrap_or_default()
                    )));
                }
                at = 0;
                let origin = Origin { url: masked(url), validator: validator(headers), total };
                let begun = part.begin(&origin);
                let unwritable =
                    |source| Stop::Here(DataError::Unwritable { path: part.path.clone(), source });
                (begun.map_err(unwritable)?, total)
            }
            status => return Err(refused(status, headers)),
        };
        let first = at;
        tell(at, total);
        let mut body = response.into_body().into_reader();
        let mut chunk = vec![0; CHUNK];
        let mut window = (Instant::now(), 0);
        loop {
            let n = match body.read(&mut chunk) {
                Ok(0) => break,
                Ok(n) => n as u64,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    let why = match Error::from(error) {
                        Error::Io(error) if error.kind() == ErrorKind::UnexpectedEof => cut_off(at, total),
                        Error::Timeout(_) => {
                            format!("sends nothing any more for {}", seconds(self.fetch.stall_timeout))
                        }
                        other => format!("breaks off ({})", describe(&other).0),
                    };
                    return Err(Stop::Passing { why, after: None });
                }
            };
            if at + n > longest {
                part.discard();
                return Err(Stop::Mirror(format!("sends more than the {longest} bytes that are expected")));
            }
            file.write_all(&chunk[..n as usize]).map_err(here)?;
            at += n;
            window.1 += n;
            tell(at, total);
            if window.0.elapsed() >= self.fetch.stall_timeout {
                if window.1 < SLOWEST {
                    let time = seconds(self.fetch.stall_timeout);
                    return Err(Stop::Passing {
                        why: format!("sent {} bytes in {time}", window.1),
                        after: None,
                    });
                }
                window = (Instant::now(), 0);
            }
        }
        if total.is_some_and(|total| at < total) {
            return Err(Stop::Passing { why: cut_off(at, total), after: None });
        }
        Ok(at - first)
    }

    /// The answer of `url`, or of where it points to; the rest of the file where some of it is here.
    fn ask(&self, url: &str, rest: Option<(u64, Option<&str>)>) -> Result<Response<Body>, Stop> {
        let mut address = url.to_owned();
        for _ in 0..=MOST_REDIRECTS {
            let wrong = || Stop::Mirror(format!("{:?} is no address", masked(&address)));
            let uri: Uri = address.parse().map_err(|_| wrong())?;
            if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
                return Err(wrong());
            }
            let proxy = self.fetch.proxies.of(&uri).map_err(Stop::Mirror)?;
            let through = proxy
                .as_ref()
                .map(|proxy| format!(" (through the proxy {}:{})", proxy.host(), proxy.port()))
                .unwrap_or_default();
            let mut request = self.agent.get(&uri);
            if let Some((at, validator)) = rest {
                request = request.header(header::RANGE, format!("bytes={at}-"));
                if let Some(validator) = validator {
                    request = request.header(header::IF_RANGE, validator);
                }
            }
            let response = request.config().proxy(proxy).build().call().map_err(|error| {
                let (why, may_pass) = describe(&error);
                let why = why + &through;
                if may_pass { Stop::Passing { why, after: None } } else { Stop::Mirror(why) }
            })?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let target = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
            let Some(target) = target.and_then(|target| joined(&uri, target)) else {
                return Err(Stop::Mirror(format!("answers {} without saying where to", response.status())));
            };
            if uri.scheme_str() == Some("https") && !target.starts_with("https:") {
                return Err(Stop::Mirror("points from https to an address without it".into()));
            }
            address = target;
        }
        Err(Stop::Mirror(format!("points from one address to another more than {MOST_REDIRECTS} times")))
    }
}

fn passing(why: &str) -> Stop {
    Stop::Passing { why: why.into(), after: None }
}

/// A file that cannot be written, the disk being full above all.
fn here(path: &Path, source: std::io::Error) -> Stop {
    Stop::Here(DataError::Store { path: path.into(), source })
}

fn cut_off(at: u64, total: Option<u64>) -> String {
    match total {
        Some(total) => format!("breaks off after {at} of {total} bytes"),
        None => format!("breaks off after {at} bytes"),
    }
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs_f64())
}

/// What an answer other than the file means.
fn refused(status: StatusCode, headers: &HeaderMap) -> Stop {
    let why = format!("answers {status}");
    if matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502 | 503 | 504) {
        // a date needs a clock that is right: only seconds are understood
        let after =
            headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        return Stop::Passing { why, after: after.map(Duration::from_secs) };
    }
    Stop::Mirror(why)
}

/// What went wrong, and whether it may go better the next time.
fn describe(error: &Error) -> (String, bool) {
    match error {
        Error::HostNotFound => (NOT_FOUND.into(), false),
        Error::Io(error) if is_of_names(error) => (NOT_FOUND.into(), false),
        Error::Timeout(Timeout::Resolve) => ("is not found in time: no name server answers".into(), false),
        Error::Timeout(Timeout::Connect) => ("takes no connection in time".into(), false),
        Error::Timeout(_) => ("takes the connection, but does not answer".into(), true),
        Error::Io(error) => match error.kind() {
            ErrorKind::ConnectionRefused => ("refuses the connection".into(), false),
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => {
                ("closes the connection without an answer".into(), true)
            }
            ErrorKind::InvalidData => (untrusted(error.to_string()), false),
            _ => (format!("cannot be reached ({error})"), true),
        },
        Error::Rustls(error) => (untrusted(error.to_string()), false),
        Error::Tls(error) => (untrusted((*error).to_owned()), false),
        Error::ConnectProxyFailed(why) => (format!("is not let through: {why}"), false),
        Error::Protocol(error) => (format!("does not speak HTTP ({error})"), false),
        other => (format!("gives no sound answer ({other})"), false),
    }
}

/// What is said of a server that is not who it should be, as behind a proxy that reads along.
fn untrusted(why: String) -> String {
    match why.contains("UnknownIssuer") {
        true => "has a certificate of an unknown issuer (SSL_CERT_FILE names those to trust)".into(),
        false => format!("cannot be trusted ({why})"),
    }
}

/// What is said where a name is not known, which is so of all names where there is no network.
const NOT_FOUND: &str = "is not found (no such host, or no network)";

/// True of what the system says of names; the library has no kind of error for it.
fn is_of_names(error: &std::io::Error) -> bool {
    let text = error.to_string();
    // Windows: host not found, try again, no recovery, no data
    text.contains("lookup address") || matches!(error.raw_os_error(), Some(11_001..=11_004))
}

/// The `Content-Length` of a whole file.
fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// A strong ETag, else the date of the last change: what `If-Range` takes.
fn validator(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    text(header::ETAG).filter(|tag| tag.starts_with('"')).or_else(|| text(header::LAST_MODIFIED))
}

/// First byte and whole length of `Content-Range: bytes 5-9/10`.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let text = headers.get(header::CONTENT_RANGE)?.to_str().ok()?.trim();
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.trim().parse().ok()?, total.trim().parse().ok()))
}

/// The address that `Location` names, seen from the one that answered.
fn joined(from: &Uri, target: &str) -> Option<String> {
    let (scheme, authority) = (from.scheme_str()?, from.authority()?);
    let target = target.split('#').next().unwrap_or_default();
    let is_whole = target.split_once(':').is_some_and(|(front, _)| {
        !front.is_empty() && front.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    });
    Some(if target.is_empty() {
        return None;
    } else if is_whole {
        target.to_owned()
    } else if target.starts_with("//") {
        format!("{scheme}:{target}")
    } else if target.starts_with('/') {
        format!("{scheme}://{authority}{target}")
    } else {
        let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{target}")
    })
}

/// The certificates of a PEM file.
fn certificates(path: &Path) -> Result<RootCerts, DataError> {
    let wrong = |why: String| DataError::Shape {
        origin: path.display().to_string(),
        message: format!("{why}, but is to hold the certificates to trust (SSL_CERT_FILE names it)"),
    };
    let meta = std::fs::metadata(path).map_err(|error| wrong(format!("cannot be read ({error})")))?;
    if !meta.is_file() || meta.len() > MOST_CERTIFICATES {
        return Err(wrong("is no regular file, or too large".into()));
    }
    let pem = std::fs::read(path).map_err(|error| wrong(format!("cannot be read ({error})")))?;
    let found: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if found.is_empty() {
        return Err(wrong("holds no certificate in PEM".into()));
    }
    Ok(RootCerts::from(found.into_iter()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_name_their_target_in_four_ways() {
        let from: Uri = "https://a.example:8/x/y?z".parse().unwrap();
        for (target, want) in [
            ("http://b.example/f#part", "http://b.example/f"),
            ("//b.example/f", "https://b.example/f"),
            ("/f?q=1:2", "https://a.example:8/f?q=1:2"),
            ("f", "https://a.example:8/x/f"),
        ] {
            assert_eq!(joined(&from, target).as_deref(), Some(want));
        }
        assert_eq!(joined(&from, ""), None);
    }

    #[test]
    fn ranges_are_read() {
        let mut headers = HeaderMap::new();
        for (text, want) in [
            ("bytes 5-9/10", Some((5, Some(10)))),
            ("bytes 5-9/*", Some((5, None))),
            ("bytes */10", None),
            ("items 5-9/10", None),
        ] {
            headers.insert(header::CONTENT_RANGE, text.parse().unwrap());
            assert_eq!(content_range(&headers), want, "{text}");
        }
        headers.insert(header::ETAG, "W/\"weak\"".parse().unwrap());
        assert_eq!(validator(&headers), None);
        headers.insert(header::LAST_MODIFIED, "yesterday".parse().unwrap());
        assert_eq!(validator(&headers).as_deref(), Some("yesterday"));
        headers.insert(header::ETAG, "\"strong\"".parse().unwrap());
        assert_eq!(validator(&headers).as_deref(), Some("\"strong\""));
    }
}
