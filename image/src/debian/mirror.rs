//! Which mirror of Debian's archive is asked.

use super::Archive;
use std::path::Path;

/// Debian's own, which sends everybody to a mirror nearby.
const DEFAULT: &str = "http://deb.debian.org/debian";

/// The base URLs of a mirror, without a slash at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    main: String,
    security: String,
}

impl Mirror {
    /// The configured one, else `ROUSE_DEBIAN_MIRROR`, else the first in this machine's apt sources
    /// that serves Debian's archive, else Debian's default.
    pub fn find(configured: Option<&str>) -> Self {
        let environment = std::env::var("ROUSE_DEBIAN_MIRROR").ok().filter(|url| !url.is_empty());
        if let Some(url) = configured.map(str::to_owned).or(environment) {
            return Self::at(&url);
        }
        Self::from_apt(Path::new("/etc/apt")).unwrap_or_else(|| Self::at(DEFAULT))
    }

    /// A mirror by its URL. Security updates are taken to be beside it, in `URL-security`, as on
    /// Debian's own mirrors.
    pub fn at(url: &str) -> Self {
        let main = url.trim_end_matches('/').to_owned();
        let security = format!("{main}-security");
        Self { main, security }
    }

    /// The first of apt's sources whose path ends in `/debian`, as sources.list(5) reads them.
    fn from_apt(folder: &Path) -> Option<Self> {
        let mut texts = vec![(folder.join("sources.list"), Form::Lines)];
        let mut parts: Vec<_> = std::fs::read_dir(folder.join("sources.list.d"))
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        parts.sort();
        for path in parts {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("list") => texts.push((path, Form::Lines)),
                Some("sources") => texts.push((path, Form::Stanzas)),
                _ => {}
            }
        }
        let mut urls = Vec::new();
        for (path, form) in texts {
            let Ok(text) = std::fs::read_to_string(path) else { continue };
            match form {
                Form::Lines => urls.extend(text.lines().filter_map(url_of_line)),
                Form::Stanzas => urls.extend(text.split("\n\n").flat_map(urls_of_stanza)),
            }
        }
        let serves = |path: &str| {
            let end = format!("/{path}");
            urls.iter().find(|url| url.ends_with(&end)).cloned()
        };
        let mut mirror = Self::at(&serves("debian")?);
        if let Some(security) = serves("debian-security") {
            mirror.security = security;
        }
        Some(mirror)
    }

    /// The URL of one of the archives.
    pub fn url(&self, archive: Archive) -> &str {
        match archive {
            Archive::Debian => &self.main,
            Archive::DebianSecurity => &self.security,
        }
    }
}

enum Form {
    /// One source a line.
    Lines,
    /// deb822.
    Stanzas,
}

/// `deb [options] URL suite component...`
fn url_of_line(line: &str) -> Option<String> {
    let rest = line.trim().strip_prefix("deb ")?.trim_start();
    let rest = match rest.strip_prefix('[') {
        Some(options) => options.split_once(']')?.1,
        None => rest,
    };
    web(rest.split_whitespace().next()?)
}

/// `URIs:` of a deb822 stanza that has binary packages and is not switched off.
fn urls_of_stanza(stanza: &str) -> Vec<String> {
    let field = |wanted: &str| {
        stanza.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(wanted).then(|| value.trim())
        })
    };
    let off = field("Enabled").is_some_and(|value| value.eq_ignore_ascii_case("no"));
    let binary = field("Types").is_some_and(|types| types.split_whitespace().any(|at| at == "deb"));
    if off || !binary {
        return Vec::new();
    }
    field("URIs").unwrap_or_default().split_whitespace().filter_map(web).collect()
}

/// A source's URL, if it is one of the web. Of a list of mirrors in a file, apt-transport-mirror(1),
/// it is the first.
fn web(url: &str) -> Option<String> {
    if let Some(path) = url.strip_prefix("mirror+file:") {
        // `file:/path` and `file:///path` are the same.
        let path = format!("/{}", path.trim_start_matches('/'));
        let list = std::fs::read_to_string(path).ok()?;
        let mut mirrors = list.lines().filter_map(|line| line.split_whitespace().next());
        return mirrors.find(|url| is_web(url)).and_then(web);
    }
    is_web(url).then(|| url.trim_end_matches('/').to_owned())
}

fn is_web(url: &str) -> bool {
    url.starts_with("http://") || url.starts_with("https://")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apt(files: &[(&str, &str)]) -> Option<Mirror> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("sources.list.d")).unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Mirror::from_apt(folder.path())
    }

    #[test]
    fn one_line_sources_are_read() {
        let text = "# deb http://no.test/debian trixie main\n\
            deb-src http://src.test/debian trixie main\n\
            deb cdrom:[disc]/debian trixie main\n\
            deb http://other.test/apt stable main\n\
            deb [arch=amd64 signed-by=/a b] http://one.test/debian/ trixie main\n\
            deb http://two.test/debian trixie main\n";
        let mirror = apt(&[("sources.list", text)]).unwrap();
        assert_eq!(mirror, Mirror::at("http://one.test/debian"));
        assert_eq!(mirror.url(Archive::DebianSecurity), "http://one.test/debian-security");
    }

    #[test]
    fn deb822_sources_are_read() {
        let text = "Enabled: no\nTypes: deb\nURIs: http://off.test/debian\n\n\
            Types: deb-src\nURIs: http://src.test/debian\n\n\
            Types: deb\n# URIs: http://no.test/debian\nURIs: http://one.test/debian\nSuites: x\n\n\
            Types: deb deb-src\nURIs: https://sec.test/debian-security/\n";
        let mirror = apt(&[("sources.list.d/debian.sources", text)]).unwrap();
        assert_eq!(mirror.url(Archive::Debian), "http://one.test/debian");
        assert_eq!(mirror.url(Archive::DebianSecurity), "https://sec.test/debian-security");
    }

    /// As Debian's images for clouds have them.
    #[test]
    fn lists_of_mirrors_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let list = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let main = list(
            "debian.list",
            "# near\nhttp://one.test/debian/\tpriority:1\nhttp://two.test/debian\n",
        );
        let security = list("security.list", "https://sec.test/debian-security\n");
        let sources = format!(
            "Types: deb deb-src\nURIs: mirror+file://{main}\n\n\
             Types: deb\nURIs: mirror+file:{security}\n"
        );
        let mirror = apt(&[("sources.list.d/debian.sources", &sources)]).unwrap();
        assert_eq!(mirror.url(Archive::Debian), "http://one.test/debian");
        assert_eq!(mirror.url(Archive::DebianSecurity), "https://sec.test/debian-security");
        let gone = "deb mirror+file:/nonexistent/debian.list trixie main\n";
        assert_eq!(apt(&[("sources.list", gone)]), None);
    }

    #[test]
    fn a_machine_that_is_no_debian_has_none() {
        assert_eq!(apt(&[("sources.list", "deb http://a.test/ubuntu noble main\n")]), None);
        assert_eq!(Mirror::from_apt(Path::new("/nonexistent")), None);
    }
}
