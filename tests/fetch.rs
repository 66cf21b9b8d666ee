//! Downloads against a server on loopback that does everything wrong that servers do.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Output},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use flate2::{Compression, write::GzEncoder};
use kiln::data::{
    Content, DataDir, DataError, Dataset, Digest, Fetch, Fetched, FileState, Progress, Proxies, Source,
};
use serde_json::Value;
use tempfile::TempDir;

/// What the server was asked.
#[derive(Clone, Debug)]
struct Request {
    method: String,
    target: String,
    headers: HashMap<String, String>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The first byte of a range.
    fn from(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// A server; its threads end with the process.
struct Server {
    port: u16,
    asked: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// `answer` is called for each request with its number, counted from 0.
    fn new(answer: impl Fn(usize, &Request, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answer, log) = (Arc::new(answer), asked.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let (answer, log) = (answer.clone(), log.clone());
                thread::spawn(move || {
                    // a proxy's tunnel carries a second request
                    while let Some(request) = read_request(&stream) {
                        let n = {
                            let mut log = log.lock().unwrap();
                            log.push(request.clone());
                            log.len() - 1
                        };
                        answer(n, &request, &mut stream);
                        if request.method != "CONNECT" {
                            return;
                        }
                    }
                });
            }
        });
        Self { port, asked }
    }

    fn url(&self, file: &str) -> String {
        format!("http://127.0.0.1:{}/{file}", self.port)
    }

    fn asked(&self) -> Vec<Request> {
        self.asked.lock().unwrap().clone()
    }
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    // one request is sent at a time, so that nothing is lost in the buffer
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let first = lines.next()?.ok()?;
    let mut words = first.split(' ').map(str::to_owned);
    let (method, target) = (words.next()?, words.next()?);
    let mut headers = HashMap::new();
    for line in lines {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    Some(Request { method, target, headers })
}

/// Status, headers and body; the length is in no header.
fn send(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]) {
    let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n");
    // the other side may have heard enough
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}

fn ok(stream: &mut TcpStream, body: &[u8]) {
    send(stream, "200 OK", &format!("Content-Length: {}\r\n", body.len()), body);
}

/// The file, or the rest of it that is asked for, with an ETag.
fn serve(request: &Request, stream: &mut TcpStream, body: &[u8], tag: &str) {
    let whole = request.header("if-range").is_some_and(|known| known != tag);
    match request.from().filter(|from| !whole && *from < body.len()) {
        Some(from) => {
            let headers = format!(
                "ETag: {tag}\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{}/{}\r\n",
                body.len() - from,
                body.len() - 1,
                body.len()
            );
            send(stream, "206 Partial Content", &headers, &body[from..]);
        }
        None => {
            let headers = format!("ETag: {tag}\r\nContent-Length: {}\r\n", body.len());
            send(stream, "200 OK", &headers, body);
        }
    }
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// 300,000 bytes that do not compress well.
fn content() -> Vec<u8> {
    let mut state = 1u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..300_000).map(next).collect()
}

/// Short times, no proxy whatever the environment says.
fn quick() -> Fetch {
    Fetch {
        offline: false,
        mirrors: Vec::new(),
        connect_timeout: Duration::from_secs(2),
        stall_timeout: Duration::from_millis(250),
        attempts: 3,
        first_wait: Duration::from_millis(5),
        longest_wait: Duration::from_secs(2),
        proxies: Proxies::default(),
        certificates: None,
    }
}

fn source(urls: &[String]) -> Source {
    let content = Content::File(Digest::of(&content()));
    Source { file: "data.gz".into(), urls: urls.to_vec(), content }
}

/// A fetch of one file into a folder of its own, and what was told.
struct Fetching {
    dir: TempDir,
    told: Vec<String>,
}

impl Fetching {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), told: Vec::new() }
    }

    fn folder(&self) -> &Path {
        self.dir.path()
    }

    fn run(&mut self, fetch: &Fetch, source: &Source) -> Result<Fetched, DataError> {
        let told = &mut self.told;
        let result =
            fetch.fetch_sources("set", self.dir.path(), std::slice::from_ref(source), &mut |progress| {
                if !matches!(progress, Progress::Received { .. }) {
                    told.push(format!("{progress:?}"));
                }
            });
        assert!(fs::read_dir(self.dir.path()).unwrap().count() < 9);
        result
    }

    fn has(&self, file: &str) -> bool {
        self.dir.path().join(file).exists()
    }

    /// Fails, and says this; nothing under the file's name is left behind.
    fn fails(&mut self, fetch: &Fetch, source: &Source, want: &str) -> String {
        let message = self.run(fetch, source).unwrap_err().to_string();
        assert!(message.contains(want), "{message:?} lacks {want:?}");
        assert!(!self.has("data") && !self.has("data.gz"), "a wrong file is left");
        message
    }

    fn is_right(&self) {
        let packed = fs::read(self.folder().join("data.gz")).unwrap();
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut plain).unwrap();
        assert!(plain == content());
        assert!(!self.has("data.gz.part") && !self.has("data.gz.part.from"));
    }
}

#[test]
fn downloads_once_and_then_verifies() {
    let server = Server::new(|_, _, stream| ok(stream, &gzip(&content())));
    let mut fetching = Fetching::new();
    let wanted = source(&[server.url("data.gz")]);
    let first = fetching.run(&quick(), &wanted).unwrap();
    fetching.is_right();
    assert_eq!(first.files[0].state, FileState::Downloaded);
    assert_eq!(first.files[0].from.as_deref(), Some(server.url("data.gz").as_str()));
    assert_eq!(first.files[0].bytes, fs::metadata(&first.files[0].path).unwrap().len());
    let again = fetching.run(&quick(), &wanted).unwrap();
    assert_eq!(again.files[0].state, FileState::Present);
    let offline = Fetch { offline: true, ..quick() };
    assert!(fetching.run(&offline, &wanted).is_ok());
    let asked = server.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!((asked[0].method.as_str(), asked[0].target.as_str()), ("GET", "/data.gz"));
    assert!(asked[0].header("user-agent").unwrap().starts_with("kiln/"));
    assert_eq!(asked[0].header("accept-encoding"), Some("identity"));
}

#[test]
fn what_comes_unpacked_is_right_too() {
    // some servers unpack what they serve
    let server = Server::new(|_, _, stream| ok(stream, &content()));
    let mut fetching = Fetching::new();
    let done = fetching.run(&quick(), &source(&[server.url("data.gz")])).unwrap();
    assert!(done.files[0].path.ends_with("data") && fetching.has("data") && !fetching.has("data.gz"));
}

#[test]
fn bodies_of_unknown_length_and_in_chunks() {
    let server = Server::new(|n, _, stream| {
        let body = gzip(&content());
        match n {
            0 => send(stream, "200 OK", "", &body),
            _ => {
                send(stream, "200 OK", "Transfer-Encoding: chunked\r\n", b"");
                for part in body.chunks(70_000) {
                    let _ = write!(stream, "{:x}\r\n", part.len());
                    let _ = stream.write_all(part).and_then(|()| stream.write_all(b"\r\n"));
                }
                let _ = stream.write_all(b"0\r\n\r\n");
            }
        }
    });
    for _ in 0..2 {
        let mut fetching = Fetching::new();
        fetching.run(&quick(), &source(&[server.url("data.gz")])).unwrap();
        fetching.is_right();
    }
}

#[test]
fn mirrors_stand_in_for_each_other() {
    let bad = Server::new(|_, _, stream| send(stream, "404 Not Found", "Content-Length: 0\r\n", b""));
    let good = Server::new(|_, _, stream| ok(stream, &gzip(&content())));
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut fetching = Fetching::new();
    let urls = [
        bad.url("data.gz"),
        format!("http://127.0.0.1:{closed}/data.gz"),
        "http://no-such-host.invalid/data.gz".into(),
        good.url("data.gz"),
    ];
    let done = fetching.run(&quick(), &source(&urls)).unwrap();
    fetching.is_right();
    assert_eq!(done.files[0].from.as_deref(), Some(good.url("data.gz").as_str()));
    assert_eq!(bad.asked().len(), 1, "404 is final");
    let failed = |want: &str| fetching.told.iter().any(|t| t.starts_with("Failed") && t.contains(want));
    assert!(failed("404 Not Found") && failed("refuses the connection"), "{:?}", fetching.told);
}

#[test]
fn all_failures_are_told_in_one_message() {
    let server = Server::new(|_, request, stream| match request.target.as_str() {
        "/a/data.gz" => send(stream, "403 Forbidden", "Content-Length: 0\r\n", b""),
        "/b/data.gz" => ok(stream, b"\n<!DOCTYPE html><title>Welcome</title>"),
        "/c/data.gz" => ok(stream, &gzip(b"something else")),
        _ => {}
    });
    let mut fetching = Fetching::new();
    let urls = ["a", "b", "c", "d"].map(|folder| server.url(&format!("{folder}/data.gz")));
    let message = fetching.fails(&quick(), &source(&urls), "no mirror gives data.gz");
    for want in [
        "/a/data.gz answers 403 Forbidden",
        "/b/data.gz gives a file that is a page of HTML",
        "/c/data.gz gives a file that holds 14 bytes instead of 300000",
        "/d/data.gz closes the connection without an answer (3 attempts)",
        "put data (plain or with .gz) into ",
        &fetching.folder().display().to_string(),
        "--data DIR",
        "KILN_DATA",
    ] {
        assert!(message.contains(want), "{message:?} lacks {want:?}");
    }
    assert!(!fetching.has("data.gz.part"), "what was wrong is not kept");
}

#[test]
fn busy_servers_are_asked_again() {
    for (status, after) in [("503 Service Unavailable", ""), ("429 Too Many Requests", "Retry-After: 1\r\n")]
    {
        let server = Server::new(move |n, _, stream| match n {
            0 => send(stream, status, &format!("{after}Content-Length: 0\r\n"), b""),
            _ => ok(stream, &gzip(&content())),
        });
        let mut fetching = Fetching::new();
        let started = Instant::now();
        fetching.run(&quick(), &source(&[server.url("data.gz")])).unwrap();
        fetching.is_right();
        assert_eq!(server.asked().len(), 2);
        assert!(after.is_empty() || started.elapsed() >= Duration::from_secs(1), "Retry-After is honoured");
    }
    // for an hour nobody waits
    let server = Server::new(|_, _, stream| {
        send(stream, "429 Too Many Requests", "Retry-After: 3600\r\nContent-Length: 0\r\n", b"");
    });
    let mut fetching = Fetching::new();
    fetching.fails(&quick(), &source(&[server.url("data.gz")]), "asked again after 3600 s");
    assert_eq!(server.asked().len(), 1);
    // nor for ever
    let server = Server::new(|_, _, stream| send(stream, "502 Bad Gateway", "Content-Length: 0\r\n", b""));
    fetching.fails(&quick(), &source(&[server.url("data.gz")]), "502 Bad Gateway (3 attempts)");
    assert_eq!(server.asked().len(), 3);
}

#[test]
fn servers_that_fall_silent() {
    // without an answer, in mid-body, and with a byte now and then
    let server = Server::new(|_, request, stream| match request.target.as_str() {
        "/answer" => thread::sleep(Duration::from_secs(20)),
        "/body" => {
            send(stream, "200 OK", "Content-Length: 1000\r\n", &[0x1f; 100]);
            thread::sleep(Duration::from_secs(20));
        }
        _ => {
            send(stream, "200 OK", "Content-Length: 100000\r\n", b"");
            while stream.write_all(&[0x1f]).is_ok() {
                thread::sleep(Duration::from_millis(50));
            }
        }
    });
    let fetch = Fetch { attempts: 2, ..quick() };
    for (target, want) in [
        ("answer", "takes the connection, but does not answer (2 attempts)"),
        ("body", "sends nothing any more for 0.25 s"),
        ("drops", "bytes in 0.25 s"),
    ] {
        let started = Instant::now();
        Fetching::new().fails(&fetch, &source(&[server.url(target)]), want);
        assert!(started.elapsed() < Duration::from_secs(5), "{target} took {:?}", started.elapsed());
    }
}

/// A body that breaks off is gone on with, now and the next time.
#[test]
fn broken_transfers_are_gone_on_with() {
    let server = Server::new(|n, request, stream| {
        let body = gzip(&content());
        match n {
            0 | 1 => {
                let from = request.from().unwrap_or(0);
                let headers = match from {
                    0 => format!("ETag: \"v1\"\r\nContent-Length: {}\r\n", body.len()),
                    _ => format!(
                        "ETag: \"v1\"\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{}/{}\r\n",
                        body.len() - from,
                        body.len() - 1,
                        body.len()
                    ),
                };
                let status = if from == 0 { "200 OK" } else { "206 Partial Content" };
                send(stream, status, &headers, &body[from..from + 100_000]);
            }
            _ => serve(request, stream, &body, "\"v1\""),
        }
    });
    let mut fetching = Fetching::new();
    let wanted = source(&[server.url("data.gz")]);
    let once = Fetch { attempts: 1, ..quick() };
    let whole = gzip(&content()).len();
    fetching.fails(&once, &wanted, &format!("breaks off after 100000 of {whole} bytes"));
    assert_eq!(fs::metadata(fetching.folder().join("data.gz.part")).unwrap().len(), 100_000);
    fetching.run(&quick(), &wanted).unwrap();
    fetching.is_right();
    let asked = server.asked();
    assert_eq!(asked.iter().map(Request::from).collect::<Vec<_>>(), [None, Some(100_000), Some(200_000)]);
    assert_eq!(asked[1].header("if-range"), Some("\"v1\""));
}

/// A whole answer that breaks off after more than a mebibyte, then a part that was not asked for, and so on: the same first
/// bytes again and again are no progress.
#[test]
fn the_same_bytes_again_are_no_progress() {
    const WHOLE: usize = 3 << 20;
    let server = Server::new(|n, request, stream| match request.from() {
        // so that the test ends where the fetch would not
        _ if n >= 20 => send(stream, "404 Not Found", "Content-Length: 0\r\n", b""),
        Some(_) => {
            let headers = format!("Content-Length: 9\r\nContent-Range: bytes 7-15/{WHOLE}\r\n");
            send(stream, "206 Partial Content", &headers, &[0; 9]);
        }
        None => send(stream, "200 OK", &format!("Content-Length: {WHOLE}\r\n"), &[0; 2 << 20]),
    });
    let content = Content::File(Digest { bytes: WHOLE as u64, sha256: "0".repeat(64) });
    let wanted = Source { file: "data.gz".into(), urls: vec![server.url("data.gz")], content };
    Fetching::new().fails(&quick(), &wanted, "(3 attempts)");
    assert!(server.asked().len() <= 4, "{}", server.asked().len());
}

/// What lies on the disk is of another version than what the server has now: never both in one file.
#[test]
fn two_versions_are_never_joined() {
    let old = |folder: &Path, url: &str, bytes: &[u8], total: usize| {
        fs::write(folder.join("data.gz.part"), bytes).unwrap();
        fs::write(folder.join("data.gz.part.from"), format!("{url}\n\"old\"\n{total}\n")).unwrap();
    };
    let body = gzip(&content());
    // the server notices; it knows no ranges; it has too little; it sends another part; it ignores If-Range
    for (what, requests) in [("notices", 1), ("whole", 1), ("416", 2), ("elsewhere", 2), ("ignores", 2)] {
        let served = body.clone();
        let server = Server::new(move |n, request, stream| match (what, n) {
            ("notices", _) => serve(request, stream, &served, "\"new\""),
            ("whole", _) => ok(stream, &served),
            ("416", 0) => send(stream, "416 Range Not Satisfiable", "Content-Length: 0\r\n", b""),
            ("elsewhere", 0) => {
                let headers = "ETag: \"old\"\r\nContent-Range: bytes 7-9/10\r\nContent-Length: 3\r\n";
                send(stream, "206 Partial Content", headers, b"abc");
            }
            ("ignores", 0) => {
                let headers = format!(
                    "ETag: \"new\"\r\nContent-Range: bytes 50-{}/{}\r\nContent-Length: {}\r\n",
                    served.len() - 1,
                    served.len(),
                    served.len() - 50
                );
                send(stream, "206 Partial Content", &headers, &served[50..]);
            }
            _ => ok(stream, &served),
        });
        let mut fetching = Fetching::new();
        let url = server.url("data.gz");
        old(fetching.folder(), &url, &[7; 50], body.len());
        fetching.run(&quick(), &source(&[url])).unwrap();
        fetching.is_right();
        let asked: Vec<Option<usize>> = server.asked().iter().map(Request::from).collect();
        assert_eq!(asked, [Some(50), None][..requests], "{what}");
    }
    // a part whose origin is not known, or of another mirror, is not gone on with
    let server = Server::new(move |_, request, stream| serve(request, stream, &gzip(&content()), "\"v\""));
    for note in ["http://elsewhere.invalid/data.gz\n\"v\"\n400000\n", "", "\u{1}"] {
        let mut fetching = Fetching::new();
        fs::write(fetching.folder().join("data.gz.part"), [1; 30]).unwrap();
        fs::write(fetching.folder().join("data.gz.part.from"), note).unwrap();
        fetching.run(&quick(), &source(&[server.url("data.gz")])).unwrap();
        fetching.is_right();
    }
    assert!(server.asked().iter().all(|request| request.from().is_none()));
    // a part that is whole, but damaged here, is fetched anew
    let mut fetching = Fetching::new();
    old(fetching.folder(), &server.url("data.gz"), &vec![7; body.len()], body.len());
    fetching.run(&quick(), &source(&[server.url("data.gz")])).unwrap();
    fetching.is_right();
}

#[test]
fn lengths_that_lie() {
    let body = gzip(&content());
    let (less, more) = (body.len() - 1000, body.len() + 1000);
    let server = Server::new(move |_, request, stream| {
        let length = if request.target == "/less" { less } else { more };
        send(stream, "200 OK", &format!("Content-Length: {length}\r\n"), &body);
    });
    Fetching::new().fails(&quick(), &source(&[server.url("less")]), "gives a file that is cut off");
    let want = format!("breaks off after {} of {more} bytes", more - 1000);
    Fetching::new().fails(&quick(), &source(&[server.url("more")]), &want);
}

#[test]
fn bodies_without_end_fill_no_disk() {
    let server = Server::new(|_, request, stream| {
        let headers = if request.target == "/said" { "Content-Length: 99000000000\r\n" } else { "" };
        send(stream, "200 OK", headers, b"");
        while stream.write_all(&[0; 1 << 16]).is_ok() {}
    });
    for (target, want) in
        [("said", "would send 99000000000 bytes"), ("silent", "sends more than the 1348876 bytes")]
    {
        let mut fetching = Fetching::new();
        fetching.fails(&quick(), &source(&[server.url(target)]), want);
        assert!(!fetching.has("data.gz.part"));
    }
    // small on the way, large unpacked
    let bomb = gzip(&vec![0; 80_000_000]);
    let server = Server::new(move |_, _, stream| ok(stream, &bomb));
    Fetching::new().fails(&quick(), &source(&[server.url("bomb")]), "holds more than 300000 bytes");
}

#[test]
fn redirects_are_followed_so_far() {
    let server = Server::new(|_, request, stream| {
        let to = |stream: &mut TcpStream, target: &str| {
            send(stream, "302 Found", &format!("Location: {target}\r\nContent-Length: 0\r\n"), b"");
        };
        match request.target.as_str() {
            "/moved/data.gz" => to(stream, "../moved/there"),
            "/moved/../moved/there" => to(stream, "/here?key=a/b"),
            "/here?key=a/b" => ok(stream, &gzip(&content())),
            "/nowhere" => send(stream, "301 Moved Permanently", "Content-Length: 0\r\n", b""),
            "/file" => to(stream, "file:///etc/passwd"),
            other => to(stream, &format!("{other}x")),
        }
    });
    let mut fetching = Fetching::new();
    fetching.run(&quick(), &source(&[server.url("moved/data.gz")])).unwrap();
    fetching.is_right();
    Fetching::new().fails(&quick(), &source(&[server.url("loop")]), "more than 5 times");
    Fetching::new().fails(&quick(), &source(&[server.url("nowhere")]), "without saying where to");
    Fetching::new().fails(&quick(), &source(&[server.url("file")]), "is no address");
}

#[test]
fn damaged_files_are_named_kept_aside_and_replaced() {
    let server = Server::new(|_, _, stream| ok(stream, &gzip(&content())));
    let wanted = source(&[server.url("data.gz")]);
    let mut fetching = Fetching::new();
    let damaged = fetching.folder().join("data.gz");
    let packed = gzip(&content());
    fs::write(&damaged, &packed[..1000]).unwrap();
    let offline = Fetch { offline: true, ..quick() };
    let message = fetching.run(&offline, &wanted).unwrap_err().to_string();
    assert!(message.contains("data.gz is cut off"), "{message}");
    let done = fetching.run(&quick(), &wanted).unwrap();
    fetching.is_right();
    let aside = fetching.folder().join("data.gz.damaged");
    assert_eq!(done.files[0].replaced.as_ref(), Some(&aside));
    assert_eq!(fs::read(aside).unwrap(), packed[..1000]);
    assert!(fetching.told.iter().any(|told| told.starts_with("Damaged") && told.contains("data.gz")));
    // a damaged plain file, which readers would take first, over a right one that is packed
    fs::write(fetching.folder().join("data"), b"rubbish").unwrap();
    let done = fetching.run(&quick(), &wanted).unwrap();
    assert_eq!((done.files[0].state, server.asked().len()), (FileState::Present, 1));
    assert!(fetching.has("data.damaged") && !fetching.has("data"));
}

#[test]
fn two_at_once_fetch_once() {
    let server = Server::new(|_, _, stream| {
        thread::sleep(Duration::from_millis(150));
        ok(stream, &gzip(&content()));
    });
    let dir = tempfile::tempdir().unwrap();
    let wanted = source(&[server.url("data.gz")]);
    let states: Vec<FileState> = thread::scope(|scope| {
        let fetch = || quick().fetch_sources("set", dir.path(), std::slice::from_ref(&wanted), &mut |_| {});
        let runs: Vec<_> = (0..4).map(|_| scope.spawn(fetch)).collect();
        runs.into_iter().map(|run| run.join().unwrap().unwrap().files[0].state).collect()
    });
    assert_eq!(states.iter().filter(|state| **state == FileState::Downloaded).count(), 1, "{states:?}");
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn a_fetch_that_fails_takes_its_folders_along_and_keeps_nobody_from_the_next() {
    let server = Server::new(|n, _, stream| {
        thread::sleep(Duration::from_millis(150));
        match n {
            0 | 1 => send(stream, "403 Forbidden", "Content-Length: 0\r\n", b""),
            _ => ok(stream, &gzip(&content())),
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("new/set");
    let wanted = source(&[server.url("data.gz")]);
    let fetch = || quick().fetch_sources("set", &folder, std::slice::from_ref(&wanted), &mut |_| {});
    assert!(fetch().is_err());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing came, nothing stays");
    // one fails while the others wait for it: they make the folder anew, and only one of them fetches
    let all: Vec<Result<Fetched, DataError>> = thread::scope(|scope| {
        let runs: Vec<_> = (0..4).map(|_| scope.spawn(fetch)).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    let failed: Vec<String> =
        all.iter().filter_map(|one| one.as_ref().err()).map(ToString::to_string).collect();
    assert!(failed.len() == 1 && failed[0].contains("403 Forbidden"), "{failed:?}");
    assert_eq!(server.asked().len(), 3);
    assert!(folder.join("data.gz").is_file());
}

#[test]
fn places_that_cannot_be_written() {
    let server = Server::new(|_, _, stream| ok(stream, &gzip(&content())));
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), b"").unwrap();
    let folder = dir.path().join("file/set");
    let error = quick().fetch_sources("set", &folder, &[source(&[server.url("data.gz")])], &mut |_| {});
    let message = error.unwrap_err().to_string();
    assert!(message.contains("file/set") && message.contains("--data DIR"), "{message}");
    assert!(!message.contains("kept"), "nothing has come: {message}");
    assert!(server.asked().is_empty(), "nothing is asked for what cannot be kept");
}

/// Entries of a tar archive: type, name, content.
fn tar(entries: &[(u8, &str, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (kind, name, data) in entries {
        let mut header = [0u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..108].copy_from_slice(b"0000644\0");
        header[124..136].copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
        header[148..156].copy_from_slice(b"        ");
        header[156] = *kind;
        if *kind == b'2' {
            header[157..168].copy_from_slice(b"/etc/passwd");
        }
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = header.iter().map(|&b| u32::from(b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend(header);
        archive.extend(*data);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    gzip(&archive)
}

#[test]
fn archives_give_only_what_is_known() {
    let members: [(&str, &[u8]); 2] = [("a.bin", b"first"), ("b.bin", b"second")];
    let known = members.map(|(name, data)| (name.to_owned(), Digest::of(data)));
    let wanted = |url: String| Source {
        file: "set.tar.gz".into(),
        urls: vec![url],
        content: Content::TarGz { inside: "set".into(), members: known.to_vec() },
    };
    let good = tar(&[
        (b'5', "set/", b""),
        (b'0', "set/readme.html", b"<html>"),
        (b'0', "../kiln-outside", b"bad"),
        (b'0', "/kiln-outside", b"bad"),
        (b'2', "set/a.bin", b""),
        (b'0', "set/a.bin", b"first"),
        (b'0', "./set/b.bin", b"second"),
    ]);
    let bad: [(Vec<u8>, &str); 6] = [
        (tar(&[(b'0', "set/a.bin", b"first")]), "without set/b.bin"),
        (
            tar(&[(b'0', "set/a.bin", b"fjrst"), (b'0', "set/b.bin", b"second")]),
            "its a.bin holds other bytes",
        ),
        (tar(&[(b'0', "set/a.bin", &[0; 9000])]), "its a.bin holds more than 5 bytes"),
        (good[..good.len() / 2].to_vec(), "cut off"),
        (gzip(b"no tar at all, but long enough"), "no sound tar archive"),
        (b"<html>sorry</html>".to_vec(), "page of HTML"),
    ];
    for (archive, want) in bad {
        let server = Server::new(move |_, _, stream| ok(stream, &archive));
        let mut fetching = Fetching::new();
        let message = fetching.run(&quick(), &wanted(server.url("set.tar.gz"))).unwrap_err().to_string();
        assert!(
            message.contains(want) && message.contains("put a.bin, b.bin into"),
            "{message:?} lacks {want:?}"
        );
        let left: Vec<_> = fs::read_dir(fetching.folder()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, [".fetch.lock"], "{want}");
    }
    let served = good.clone();
    let server = Server::new(move |_, _, stream| ok(stream, &served));
    let mut fetching = Fetching::new();
    let source = wanted(server.url("set.tar.gz"));
    let done = fetching.run(&quick(), &source).unwrap();
    assert_eq!(done.files.iter().map(|f| f.state).collect::<Vec<_>>(), [FileState::Downloaded; 2]);
    assert_eq!(fs::read(fetching.folder().join("b.bin")).unwrap(), b"second");
    assert!(!fetching.folder().join("../kiln-outside").exists() && !Path::new("/kiln-outside").exists());
    let mut left: Vec<_> = fs::read_dir(fetching.folder()).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, [".fetch.lock", "a.bin", "b.bin"]);
    assert_eq!(fetching.run(&quick(), &source).unwrap().files[0].state, FileState::Present);

    // put there by hand: the archive, offline; then as it unpacks
    let offline = Fetch { offline: true, ..quick() };
    let mut fetching = Fetching::new();
    fs::write(fetching.folder().join("set.tar.gz"), &good).unwrap();
    let done = fetching.run(&offline, &source).unwrap();
    assert_eq!((done.files[1].state, server.asked().len()), (FileState::Unpacked, 1));
    assert!(fetching.has("set.tar.gz"), "it is the user's");
    let mut fetching = Fetching::new();
    fs::create_dir(fetching.folder().join("set")).unwrap();
    for (name, data) in members {
        fs::write(fetching.folder().join("set").join(name), data).unwrap();
    }
    assert_eq!(fetching.run(&offline, &source).unwrap().files[0].state, FileState::Present);
}

/// A proxy is asked to connect; the answer is its own.
fn proxy() -> Server {
    Server::new(|_, request, stream| match request.method.as_str() {
        "CONNECT" => {
            let _ = stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n");
        }
        _ => ok(stream, &gzip(&content())),
    })
}

#[test]
fn proxies_are_asked_but_for_what_is_near() {
    let proxy = proxy();
    let own = Server::new(|_, _, stream| ok(stream, &gzip(&content())));
    let address = format!("http://user:secret@127.0.0.1:{}", proxy.port);
    let variables = |name: &str| match name {
        "HTTP_PROXY" => Some(address.clone()),
        "no_proxy" => Some("127.0.0.1,.near.example".into()),
        _ => None,
    };
    let fetch = Fetch { proxies: Proxies::resolve(variables), ..quick() };
    let mut fetching = Fetching::new();
    fetching.run(&fetch, &source(&["http://far.example/data.gz".into()])).unwrap();
    fetching.is_right();
    let asked = proxy.asked();
    assert_eq!((asked[0].method.as_str(), asked[0].target.as_str()), ("CONNECT", "far.example:80"));
    assert!(asked[0].header("proxy-authorization").is_some_and(|value| value.starts_with("Basic ")));
    assert_eq!(asked[1].target, "/data.gz");
    let mut fetching = Fetching::new();
    fetching.run(&fetch, &source(&[own.url("data.gz")])).unwrap();
    assert_eq!((proxy.asked().len(), own.asked().len()), (2, 1), "no_proxy is honoured");
    // a proxy that is not there is named, its password is not
    let gone = Proxies { http: Some("http://user:secret@127.0.0.1:9".into()), ..Proxies::default() };
    let fetch = Fetch { proxies: gone, ..quick() };
    let wanted = source(&["http://far.example/data.gz".into()]);
    let message = Fetching::new().fails(&fetch, &wanted, "through the proxy 127.0.0.1:9");
    assert!(!message.contains("secret"), "{message}");
}

/// The program, without the environment's proxies and folders.
fn kiln(data: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    for name in [
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
        "KILN_OFFLINE",
        "KILN_MIRROR",
        "KILN_DATA",
        "SSL_CERT_FILE",
    ] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command.envs(variables.iter().copied()).args(arguments).arg("--data").arg(data);
    command.current_dir(data).output().unwrap()
}

fn last_line(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().lines().last().unwrap_or_default().to_owned()
}

#[test]
fn the_program_says_what_failed_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::new(|_, _, stream| send(stream, "404 Not Found", "Content-Length: 0\r\n", b""));
    let mirror = server.url("sets/");
    let output = kiln(folder.path(), &[], &["data", "fetch", "mnist", "--mirror", &mirror]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let line = last_line(&output);
    for want in ["train-images-idx3-ubyte.gz", "404 Not Found", "(plain or with .gz)", "--data DIR"] {
        assert!(line.contains(want), "{line:?} lacks {want:?}");
    }
    assert_eq!(server.asked()[0].target, "/sets/mnist/train-images-idx3-ubyte.gz");

    // what is first used is fetched, unless the network is not to be used
    let count = server.asked().len();
    for arguments in [
        &["data", "show", "fashion-mnist"][..],
        &["train", "mnist-mlp", "--device", "cpu", "--epochs", "1"],
        &["data", "show", "cifar10"],
    ] {
        let output = kiln(folder.path(), &[("KILN_MIRROR", &mirror)], arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(last_line(&output).contains("404 Not Found"), "{arguments:?}: {}", last_line(&output));
        assert!(String::from_utf8_lossy(&output.stderr).contains("fetching "), "{arguments:?}");
    }
    assert_eq!(server.asked().len(), count + 3);
    let offline = [&["data", "fetch", "cifar10", "--offline"][..], &["data", "show", "cifar10", "--offline"]];
    for arguments in offline {
        let output = kiln(folder.path(), &[("KILN_MIRROR", &mirror)], arguments);
        let line = last_line(&output);
        assert_eq!(output.status.code(), Some(1));
        assert!(
            line.contains("lacks data_batch_1.bin") && line.contains("kiln data fetch cifar10"),
            "{line}"
        );
    }
    let output = kiln(folder.path(), &[("KILN_OFFLINE", "1")], &["data", "show", "mnist"]);
    assert!(last_line(&output).contains("kiln data fetch mnist"), "{}", last_line(&output));
    assert_eq!(server.asked().len(), count + 3);
    let output = kiln(folder.path(), &[("KILN_MIRROR", &mirror)], &["data", "fetch", "all"]);
    assert!(last_line(&output).contains("3 of 3 data sets"), "{}", last_line(&output));
    assert!(!folder.path().join("runs").exists());
}

/// What is no address is told before anything is done, and passwords are told to nobody.
#[test]
fn mirrors_are_checked_and_their_passwords_masked() {
    let folder = tempfile::tempdir().unwrap();
    for url in ["example.org/sets", "ftp://example.org", "", "/srv/sets"] {
        let output = kiln(folder.path(), &[], &["data", "fetch", "mnist", "--mirror", url]);
        assert_eq!(output.status.code(), Some(2), "{url}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            said.contains("--mirror") && (url.is_empty() || said.contains("http://HOST/PLACE")),
            "{said}"
        );
    }
    let body = gzip(&content());
    let server = Server::new(move |n, request, stream| match n {
        0 => {
            let headers = format!("ETag: \"v\"\r\nContent-Length: {}\r\n", body.len());
            send(stream, "200 OK", &headers, &body[..9_000]);
        }
        _ if request.target.contains("mnist") => send(stream, "404 Not Found", "Content-Length: 0\r\n", b""),
        _ => serve(request, stream, &body, "\"v\""),
    });
    let secret = |url: String| url.replace("://", "://me:secret@");
    let mut fetching = Fetching::new();
    let wanted = source(&[secret(server.url("data.gz"))]);
    let once = Fetch { attempts: 1, ..quick() };
    let message = fetching.fails(&once, &wanted, "://***@127.0.0.1");
    let note = fs::read_to_string(fetching.folder().join("data.gz.part.from")).unwrap();
    let done = fetching.run(&once, &wanted).unwrap();
    assert_eq!(server.asked()[1].from(), Some(9_000), "it is known again");
    let from = done.files[0].from.clone().unwrap();
    let told = fetching.told.join("\n");
    let output =
        kiln(folder.path(), &[], &["data", "fetch", "mnist", "--json", "--mirror", &secret(server.url(""))]);
    let said = [&output.stdout[..], &output.stderr].concat();
    for text in [message, note, from, told, String::from_utf8_lossy(&said).into_owned()] {
        assert!(text.contains("://***@127.0.0.1") && !text.contains("secret"), "{text}");
    }
}

#[test]
fn the_program_heeds_proxies() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = Server::new(|_, _, stream| send(stream, "407 Proxy Authentication Required", "", b""));
    let address = format!("127.0.0.1:{}", proxy.port);
    let variables = [("https_proxy", address.as_str()), ("HTTP_PROXY", address.as_str())];
    let output = kiln(folder.path(), &variables, &["data", "fetch", "mnist"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(last_line(&output).contains(&format!("through the proxy {address}")), "{}", last_line(&output));
    let asked: Vec<String> = proxy.asked().into_iter().map(|request| request.target).collect();
    assert!(asked.contains(&"storage.googleapis.com:443".into()), "{asked:?}");
    assert!(asked.contains(&"yann.lecun.com:80".into()), "{asked:?}");
}

/// A file of certificates that is none is told of before anything is asked.
#[test]
fn certificates_that_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::new(|_, _, stream| send(stream, "404 Not Found", "Content-Length: 0\r\n", b""));
    fs::write(folder.path().join("rubbish.pem"), b"no certificate").unwrap();
    for (file, want) in [("rubbish.pem", "holds no certificate in PEM"), ("missing.pem", "cannot be read")] {
        let arguments = ["data", "fetch", "mnist", "--mirror", &server.url("")];
        let output = kiln(folder.path(), &[("SSL_CERT_FILE", file)], &arguments);
        assert_eq!(output.status.code(), Some(1));
        let line = last_line(&output);
        assert!(line.contains(file) && line.contains(want) && line.contains("SSL_CERT_FILE"), "{line}");
    }
    assert!(server.asked().is_empty());
}

/// Interrupted in mid-body: status 130, what came is kept.
#[test]
#[cfg(unix)]
fn ctrl_c_ends_a_fetch_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::new(|_, _, stream| {
        send(stream, "200 OK", "ETag: \"v\"\r\nContent-Length: 9000000\r\n", &[0x1f; 50_000]);
        thread::sleep(Duration::from_secs(20));
    });
    let mut child = Command::new(env!("CARGO_BIN_EXE_kiln"))
        .args(["data", "fetch", "mnist", "--mirror", &server.url("x"), "--data"])
        .arg(folder.path())
        .env("no_proxy", "*")
        .env_remove("KILN_OFFLINE")
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let part = folder.path().join("mnist/train-images-idx3-ubyte.gz.part");
    let started = Instant::now();
    while fs::metadata(&part).map_or(0, |meta| meta.len()) < 50_000 {
        assert!(started.elapsed() < Duration::from_secs(20), "nothing came");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("what has come is kept"), "{said}");
    assert_eq!(fs::metadata(part).unwrap().len(), 50_000);
}

/// A data folder that is served as it lies is a mirror.
#[test]
fn real_sets_from_a_mirror() {
    let Some(real) = std::env::var_os("KILN_DATA") else {
        println!("skipped: KILN_DATA is not set");
        return;
    };
    let real = Path::new(&real).to_owned();
    let known = Fetch { offline: true, ..quick() };
    for name in ["mnist", "fashion-mnist"] {
        let found = known.fetch(name, &DataDir::new(&real)).unwrap();
        assert!(found.files.iter().all(|file| file.state == FileState::Present), "{name}");
    }
    let server = Server::new(move |_, request, stream| {
        let path = real.join(request.target.trim_start_matches('/'));
        match fs::read(path) {
            Ok(bytes) => ok(stream, &bytes),
            Err(_) => send(stream, "404 Not Found", "Content-Length: 0\r\n", b""),
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let mirror = server.url("");
    let output = kiln(folder.path(), &[], &["data", "fetch", "mnist", "--json", "--mirror", &mirror]);
    assert!(output.status.success(), "{}", last_line(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let files = report["datasets"][0]["files"].as_array().unwrap();
    assert_eq!(files.len(), 4);
    assert!(files.iter().all(|file| file["state"] == "downloaded" && file["bytes"].as_u64() > Some(4000)));
    assert_eq!(Dataset::mnist(folder.path()).unwrap().train.len(), 60_000);
    // and where it is first used
    let output = kiln(folder.path(), &[("KILN_MIRROR", &mirror)], &["data", "show", "fashion-mnist"]);
    assert!(output.status.success(), "{}", last_line(&output));
    assert!(folder.path().join("fashion-mnist-train.png").exists());
}
