//! Proxies by the usual variables.

use ureq::{Proxy, http::Uri};

/// Which proxy serves which address.
///
/// From the environment, as curl and most programs read it: `http_proxy` for addresses of http, `https_proxy` for those of
/// https, `all_proxy` for both where the former is not set; `no_proxy` lists, with commas, hosts that are asked
/// directly: names with all that lie below them (`example.org`, `.example.org`), addresses, or `*`, each with a port if
/// one is meant. Each name also in capitals; small letters go first. A proxy is `http://HOST:PORT`, `https://`, `socks4://`
/// or `socks5://`, with `USER:PASSWORD@` where it asks for them. Addresses of http go through it by CONNECT too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For addresses of http.
    pub http: Option<String>,
    /// For addresses of https.
    pub https: Option<String>,
    /// Hosts that are asked directly.
    pub direct: Vec<String>,
}

impl Proxies {
    /// Those of the environment.
    pub fn from_env() -> Self {
        Self::resolve(|name| std::env::var(name).ok())
    }

    /// [`Proxies::from_env`] with the environment as a function.
    ///
    /// ```
    /// let proxies = kiln_data::Proxies::resolve(|name| (name == "ALL_PROXY").then(|| "proxy:3128".into()));
    /// assert_eq!(proxies.https.as_deref(), Some("proxy:3128"));
    /// ```
    pub fn resolve(variable: impl Fn(&str) -> Option<String>) -> Self {
        let first = |names: [&str; 2]| names.into_iter().find_map(&variable).map(|v| v.trim().to_owned());
        // a variable that is set to nothing says "none", and the general one is not asked
        let proxy =
            |names| first(names).or_else(|| first(["all_proxy", "ALL_PROXY"])).filter(|v| !v.is_empty());
        let direct = first(["no_proxy", "NO_PROXY"]).unwrap_or_default();
        Self {
            http: proxy(["http_proxy", "HTTP_PROXY"]),
            https: proxy(["https_proxy", "HTTPS_PROXY"]),
            direct: direct
                .split(|c: char| c == ',' || c.is_whitespace())
                .filter(|entry| !entry.is_empty())
                .map(str::to_owned)
                .collect(),
        }
    }

    /// The proxy for an address, if there is one.
    pub(super) fn of(&self, uri: &Uri) -> Result<Option<Proxy>, String> {
        let https = uri.scheme_str() == Some("https");
        let Some(address) = (if https { &self.https } else { &self.http }) else { return Ok(None) };
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        if uri.host().is_some_and(|host| self.direct.iter().any(|entry| covers(entry, host, port))) {
            return Ok(None);
        }
        // never the address itself, which may hold a password
        let parsed = Proxy::new(address).map_err(|_| {
            let variable = if https { "https_proxy" } else { "http_proxy" };
            format!("the proxy of {variable} or all_proxy is no address of the form http://HOST:PORT")
        })?;
        Ok(Some(parsed))
    }
}

/// True if an entry of `no_proxy` names this host.
fn covers(entry: &str, host: &str, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    let bare = |text: &str| text.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    let (name, entry_port) = match entry.rsplit_once(':') {
        // more than one colon without brackets is an IPv6 address
        Some((name, digits)) if name.ends_with(']') || !name.contains(':') => match digits.parse::<u16>() {
            Ok(port) => (name, Some(port)),
            Err(_) => (entry, None),
        },
        _ => (entry, None),
    };
    let (name, host) = (bare(name.trim_start_matches('*').trim_start_matches('.')), bare(host));
    entry_port.is_none_or(|p| p == port)
        && !name.is_empty()
        && (host == name || host.strip_suffix(&name).is_some_and(|front| front.ends_with('.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        Proxies::resolve(|name| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).into()))
    }

    #[test]
    fn variables_in_their_order() {
        let all = proxies(&[
            ("ALL_PROXY", "a:1"),
            ("HTTPS_PROXY", "b:2"),
            ("https_proxy", "c:3"),
            ("no_proxy", "x, y z"),
        ]);
        assert_eq!((all.http.as_deref(), all.https.as_deref()), (Some("a:1"), Some("c:3")));
        assert_eq!(all.direct, ["x", "y", "z"]);
        assert_eq!(proxies(&[("http_proxy", ""), ("ALL_PROXY", "a:1")]).http, None);
        assert_eq!(proxies(&[]), Proxies::default());
    }

    #[test]
    fn hosts_that_are_asked_directly() {
        for (entry, host, port, want) in [
            ("*", "a.example", 80, true),
            ("example.org", "example.org", 80, true),
            ("example.org", "data.example.org", 443, true),
            (".example.org", "example.org", 80, true),
            ("*.Example.org", "a.EXAMPLE.org", 80, true),
            ("example.org", "badexample.org", 80, false),
            ("example.org:8080", "example.org", 80, false),
            ("example.org:8080", "example.org", 8080, true),
            ("127.0.0.1", "127.0.0.1", 9, true),
            ("::1", "[::1]", 9, true),
            ("[::1]:9", "[::1]", 9, true),
            ("[::1]:9", "[::1]", 8, false),
            (".", "example.org", 80, false),
            ("", "example.org", 80, false),
        ] {
            assert_eq!(covers(entry, host, port), want, "{entry} {host}:{port}");
        }
    }

    #[test]
    fn each_scheme_has_its_own() {
        let both = proxies(&[("http_proxy", "a:1"), ("https_proxy", "b:2"), ("no_proxy", "example.org")]);
        let of = |text: &str| both.of(&text.parse().unwrap()).unwrap().map(|p| p.host().to_owned());
        assert_eq!(of("http://x.net/f").as_deref(), Some("a"));
        assert_eq!(of("https://x.net/f").as_deref(), Some("b"));
        assert_eq!(of("https://example.org/f"), None);
        let wrong = proxies(&[("http_proxy", "http://u:secret@")]).of(&"http://x.net".parse().unwrap());
        assert!(wrong.is_err_and(|why| !why.contains("secret")));
    }
}
