//! config.json taken apart into properties, and two of them compared.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The Quadlet with nothing in it: of the others only what is not as there is kept.
const BASE: &str = "default";

/// What Podman wants for NOFILE and NPROC.
const LIMIT: u64 = 1_048_576;

/// A config.json as properties: `process.args`, `mounts./tmp`, `linux.seccomp`, ...
pub fn properties(specification: &Value) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    let Some(top) = specification.as_object() else { return all };
    for (name, value) in top {
        match (name.as_str(), value) {
            ("mounts", Value::Array(mounts)) => {
                for mount in mounts {
                    let destination = mount["destination"].as_str().unwrap_or_default();
                    all.insert(format!("mounts.{destination}"), mount.clone());
                }
            }
            ("linux", Value::Object(linux)) => {
                for (name, value) in linux {
                    match (name.as_str(), value) {
                        ("resources", Value::Object(resources)) => {
                            for (name, value) in resources {
                                all.insert(format!("linux.resources.{name}"), value.clone());
                            }
                        }
                        _ => {
                            all.insert(format!("linux.{name}"), value.clone());
                        }
                    }
                }
            }
            ("process" | "root" | "annotations", Value::Object(inner)) => {
                for (key, value) in inner {
                    all.insert(format!("{name}.{key}"), value.clone());
                }
            }
            _ => {
                all.insert(name.clone(), value.clone());
            }
        }
    }
    all
}

/// The same without what is another in every run: the container's id, layers, folders.
pub fn plain(specification: &Value) -> Value {
    let mut text = specification.to_string();
    let id = ["libpod-payload-", "libpod-", "vfs-containers/"].into_iter().find_map(|before| {
        let (_, rest) = text.split_once(before)?;
        let id = rest.get(..64)?;
        id.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| id.to_owned())
    });
    if let Some(id) = id {
        text = text.replace(&id, "ID").replace(&id[..12], "ID");
    }
    // Folders of overlays have numbers by chance.
    const OVERLAYS: &str = "/userdata/overlay/";
    let mut parts = text.split(OVERLAYS);
    let first = parts.next().unwrap_or_default().to_owned();
    text = parts.fold(first, |text, part| {
        format!(
            "{text}{OVERLAYS}N{}",
            part.trim_start_matches(|digit: char| digit.is_ascii_digit())
        )
    });
    let mut plain: Value = serde_json::from_str(&text).unwrap();
    if let Some(Value::String(path)) = plain.pointer_mut("/linux/cgroupsPath")
        && let Some(at) = path.rfind("/libpod-payload-")
    {
        *path = format!("/rouse{}", &path[at..]);
    }
    if let Some(Value::String(path)) = plain.pointer_mut("/root/path")
        && let Some(at) = path.find("vfs/dir/")
    {
        path.truncate(at);
        path.push_str("vfs/dir/LAYER");
    }
    // Who may open it is a matter of the machine's rules for devices.
    let devices = plain.pointer_mut("/linux/devices").and_then(Value::as_array_mut);
    for fuse in devices.into_iter().flatten().filter(|device| device["path"] == "/dev/fuse") {
        fuse["fileMode"] = 0o20600.into();
    }
    // As many as this machine allows, where that is less than Podman wants.
    for limit in
        plain.pointer_mut("/process/rlimits").and_then(Value::as_array_mut).into_iter().flatten()
    {
        let resource = match limit["type"].as_str() {
            Some("RLIMIT_NOFILE") => rustix::process::Resource::Nofile,
            Some("RLIMIT_NPROC") => rustix::process::Resource::Nproc,
            _ => continue,
        };
        let most = rustix::process::getrlimit(resource).maximum;
        if limit["hard"] == limit["soft"] && limit["hard"].as_u64() == most {
            *limit = json!({ "type": limit["type"], "soft": LIMIT, "hard": LIMIT });
        }
    }
    if let Some(Value::Array(environment)) = plain.pointer_mut("/process/env") {
        environment.sort_by_key(Value::to_string);
    }
    plain
}

/// A property that is not the same.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Its name.
    pub property: String,
    podmans: Option<Value>,
    ours: Option<Value>,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let show = |value: &Option<Value>| match value {
            Some(value) => value.to_string().chars().take(300).collect(),
            None => "absent".to_owned(),
        };
        write!(f, "{}: {} is {}", self.property, show(&self.podmans), show(&self.ours))
    }
}

/// All of them. The order in a list means nothing but in `process.args`, and what is there twice
/// counts once; an empty list or map is as good as none.
pub fn differences(
    podmans: &BTreeMap<String, Value>,
    ours: &BTreeMap<String, Value>,
) -> Vec<Difference> {
    let names: std::collections::BTreeSet<&String> = podmans.keys().chain(ours.keys()).collect();
    let mut all = vec![];
    for name in names {
        let [left, right] = [podmans, ours].map(|side| {
            let value = side.get(name).cloned()?;
            let value = if name == "process.args" { value } else { sorted(value) };
            Some(value).filter(|value| !is_empty(value))
        });
        if left != right {
            all.push(Difference { property: name.clone(), podmans: left, ours: right });
        }
    }
    all
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Array(list) => {
            let mut list: Vec<Value> = list.into_iter().map(sorted).collect();
            list.sort_by_key(Value::to_string);
            list.dedup();
            list.into()
        }
        Value::Object(map) => {
            let kept = map.into_iter().map(|(name, value)| (name, sorted(value)));
            Value::Object(kept.filter(|(_, value)| !is_empty(value)).collect())
        }
        other => other,
    }
}

/// A row of `tests/containers/DIFFERENCES.md`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Quadlets and property; `*` at the end stands for any text.
    quadlet: String,
    property: String,
}

impl Row {
    /// Whether the row is about this property of that Quadlet.
    pub fn names(&self, quadlet: &str, property: &str) -> bool {
        let fits = |pattern: &str, text: &str| match pattern.strip_suffix('*') {
            Some(prefix) => text.starts_with(prefix),
            None => pattern == text,
        };
        fits(&self.quadlet, quadlet) && fits(&self.property, property)
    }
}

/// The rows of its table: Quadlets, property, why.
pub fn rows(text: &str) -> Vec<Row> {
    let cells = |line: &str| -> Option<[String; 3]> {
        let inner = line.strip_prefix("| `")?.strip_suffix(" |")?;
        let (quadlet, rest) = inner.split_once("` | `")?;
        let (property, why) = rest.split_once("` | ")?;
        Some([quadlet, property, why].map(str::to_owned))
    };
    let rows = text.lines().filter_map(cells);
    rows.map(|[quadlet, property, _]| Row { quadlet, property }).collect()
}

/// Many of them in one file: all properties of the base, and of each other those that differ, or
/// null where it has none.
pub fn pack(all: &BTreeMap<String, Value>) -> String {
    let base = all.get(BASE).map(plain).as_ref().map(properties).unwrap_or_default();
    let mut packed = Map::new();
    for (name, specification) in all {
        let own = properties(&plain(specification));
        let mut kept = Map::new();
        for (property, value) in &own {
            if name == BASE || base.get(property) != Some(value) {
                kept.insert(property.clone(), value.clone());
            }
        }
        for property in base.keys().filter(|property| !own.contains_key(*property)) {
            kept.insert(property.clone(), Value::Null);
        }
        packed.insert(name.clone(), Value::Object(kept));
    }
    format!("{}\n", serde_json::to_string_pretty(&json!(packed)).unwrap())
}

/// What [`pack`] has packed.
pub fn unpack(text: &str) -> BTreeMap<String, BTreeMap<String, Value>> {
    let packed: BTreeMap<String, BTreeMap<String, Value>> = serde_json::from_str(text).unwrap();
    let base = packed[BASE].clone();
    let of = |own: &BTreeMap<String, Value>| {
        let mut whole = base.clone();
        whole.extend(own.clone());
        whole.retain(|_, value| !value.is_null());
        whole
    };
    packed.iter().map(|(name, own)| (name.clone(), of(own))).collect()
}
