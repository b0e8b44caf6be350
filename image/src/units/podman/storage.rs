//! What a container has from elsewhere: networks, volumes, mounts, files with variables. Names of
//! Quadlet files among them stand for what those make, and paths beside the file for where the
//! guest has it.

use super::container::Maker;
use super::lines::Text;
use crate::finding::Finding;
use crate::units::quoting::Escapes;
use crate::units::syntax::{Assignment, shorten};
use crate::units::value::Expected;

/// `Network=`
pub(super) fn networks(maker: &mut Maker<'_>) {
    for network in maker.lines.all("Network") {
        let (file, options) = match network.text.split_once(':') {
            Some((file, options)) => (file, Some(options)),
            None => (network.text.as_str(), None),
        };
        let is_container = file.ends_with(".container");
        if !is_container && !file.ends_with(".network") {
            maker.run.option("--network", &network);
            continue;
        }
        let Some(name) = resource(maker, "Network", &network.with(file)) else { continue };
        let text = match (is_container, options) {
            (true, None) => format!("container:{name}"),
            (false, None) => name,
            (false, Some(options)) => format!("{name}:{options}"),
            (true, Some(_)) => {
                let expected = Expected::Other("no options after another container's name");
                maker.lines.wrong("Network", &network, &expected);
                continue;
            }
        };
        maker.run.option("--network", &network.with(text));
    }
}

/// `Volume=`
pub(super) fn volumes(maker: &mut Maker<'_>) {
    for volume in maker.lines.all("Volume") {
        let text = match volume.text.split_once(':') {
            Some((name, rest)) if !name.is_empty() => {
                match source(maker, "Volume", &volume.with(name), &[".volume"]) {
                    Some(source) => format!("{source}:{rest}"),
                    None => continue,
                }
            }
            Some((_, rest)) => rest.split(':').next().unwrap_or_default().to_owned(),
            None => volume.text.clone(),
        };
        maker.run.option("-v", &volume.with(text));
    }
}

/// `Mount=`: of some types the source is a path or the name of another file.
pub(super) fn mounts(maker: &mut Maker<'_>) {
    for mount in maker.lines.words("Mount", Escapes::Decode) {
        let mut fields = split_csv(&mount.text);
        let kind = fields.iter().position(|field| field.starts_with("type="));
        let Some(kind) = kind.map(|at| fields.remove(at)) else {
            let expected = Expected::Other("`type=KIND,...`");
            maker.lines.wrong("Mount", &mount, &expected);
            continue;
        };
        if !["type=volume", "type=bind", "type=glob", "type=image"].contains(&kind.as_str()) {
            maker.run.option("--mount", &mount);
            continue;
        }
        let is_source = |field: &String| field.starts_with("source=") || field.starts_with("src=");
        if let Some(at) = fields.iter().rposition(is_source) {
            let name = fields[at].split_once('=').map_or("", |(_, name)| name).to_owned();
            let files = [".volume", ".image", ".build"];
            match source(maker, "Mount", &mount.with(name), &files) {
                Some(source) => fields[at] = format!("source={source}"),
                None => continue,
            }
        } else if kind != "type=volume" {
            let expected = Expected::Other("a `source=`");
            maker.lines.wrong("Mount", &mount, &expected);
            continue;
        }
        fields.insert(0, kind);
        maker.run.option("--mount", &mount.with(join_csv(&fields)));
    }
}

/// `EnvironmentFile=`
pub(super) fn environment_files(maker: &mut Maker<'_>) {
    for file in maker.lines.words("EnvironmentFile", Escapes::Decode) {
        let path = match file.text.as_str() {
            path if path.starts_with('/') || is_specifier(path) => path.to_owned(),
            path => beside(maker, path),
        };
        maker.run.option("--env-file", &file.with(path));
    }
}

/// An image's reference, if a file stands for it.
pub(super) fn image(maker: &mut Maker<'_>, key: &str, image: &Text) -> Text {
    if [".image", ".build"].iter().any(|end| image.text.ends_with(end)) {
        return image.with(resource(maker, key, image).unwrap_or_default());
    }
    image.clone()
}

/// The source of a volume or mount: a path, a Quadlet file of some types, or a name of Podman's.
fn source(maker: &mut Maker<'_>, key: &str, text: &Text, files: &[&str]) -> Option<String> {
    let path = match text.text.as_str() {
        "" => {
            maker.lines.wrong(key, text, &Expected::Other("a source that is not empty"));
            return None;
        }
        path if path.starts_with('.') => beside(maker, path),
        path => path.to_owned(),
    };
    if path.starts_with('/') {
        let line = Assignment::made("Unit", "RequiresMountsFor", path.clone(), &text.span);
        maker.unit.push(line);
        return Some(path);
    }
    if files.iter().any(|end| path.ends_with(end)) {
        return resource(maker, key, text);
    }
    Some(path)
}

/// What Podman calls the thing that a Quadlet file makes; the file's service comes first.
fn resource(maker: &mut Maker<'_>, key: &str, file: &Text) -> Option<String> {
    let Some(resource) = maker.resources.get(&file.text) else {
        nothing_there(maker, key, file, "a file beside this one");
        return None;
    };
    let Some(name) = resource.name.clone() else {
        let message =
            format!("`{key}=` names `{}`, which does not say how its thing is called", file.text);
        maker.lines.findings.push(
            Finding::error(file.span.clone(), message)
                .label("no name known")
                .help("give it a name without specifiers in that file"),
        );
        return None;
    };
    let service = resource.service.to_string();
    for relation in ["Requires", "After"] {
        maker.unit.push(Assignment::made("Unit", relation, service.clone(), &file.span));
    }
    Some(name)
}

/// A Quadlet file that is named and is not there.
pub(super) fn nothing_there(maker: &mut Maker<'_>, key: &str, file: &Text, expected: &str) {
    let known = maker.resources.keys().map(String::as_str);
    let help = match crate::units::suggest::nearest(&file.text, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("put `{}` beside appliance.toml", shorten(&file.text)),
    };
    let message = format!("`{key}=` names `{}`, which does not exist", shorten(&file.text));
    maker.lines.findings.push(
        Finding::error(file.span.clone(), message).label(format!("expected {expected}")).help(help),
    );
}

/// Where the guest has what lies beside the file.
fn beside(maker: &Maker<'_>, path: &str) -> String {
    let mut parts: Vec<&str> = maker.folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// `%h/data`, but not `%%`.
fn is_specifier(path: &str) -> bool {
    path.starts_with('%') && !path.starts_with("%%")
}

/// The fields of a line of comma separated values, RFC 4180.
fn split_csv(text: &str) -> Vec<String> {
    let mut fields = vec![];
    let mut rest = text;
    loop {
        let mut field = String::new();
        match rest.strip_prefix('"') {
            Some(mut quoted) => loop {
                match quoted.split_once('"') {
                    Some((part, tail)) if tail.starts_with('"') => {
                        field.push_str(part);
                        field.push('"');
                        quoted = &tail[1..];
                    }
                    Some((part, tail)) => {
                        field.push_str(part);
                        rest = tail;
                        break;
                    }
                    None => {
                        field.push_str(quoted);
                        rest = "";
                        break;
                    }
                }
            },
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                field.push_str(&rest[..end]);
                rest = &rest[end..];
            }
        }
        fields.push(field);
        match rest.strip_prefix(',') {
            Some(tail) => rest = tail,
            None => return fields,
        }
    }
}

fn join_csv(fields: &[String]) -> String {
    let quoted =
        |field: &String| match field.contains([',', '"', '\n', '\r']) || field.starts_with(' ') {
            true => format!("\"{}\"", field.replace('"', "\"\"")),
            false => field.clone(),
        };
    fields.iter().map(quoted).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_may_be_quoted() {
        for (text, fields) in [
            ("type=bind,source=/a,ro", vec!["type=bind", "source=/a", "ro"]),
            ("type=bind,\"source=/a,b\",ro", vec!["type=bind", "source=/a,b", "ro"]),
            ("\"a\"\"b\"", vec!["a\"b"]),
            ("a,", vec!["a", ""]),
        ] {
            assert_eq!(split_csv(text), fields, "{text}");
            let fields: Vec<String> = fields.into_iter().map(str::to_owned).collect();
            assert_eq!(split_csv(&join_csv(&fields)), fields, "{text}");
        }
    }
}
