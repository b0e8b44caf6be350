//! Podman's seccomp profile, made into what config.json takes.
//!
//! The profile's rules depend on the architecture and on the container's capabilities; those
//! that do not apply are left out, in the way of containers-common's `setupSeccomp`.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use thiserror::Error;

/// Where Debian's golang-github-containers-common has the profile.
pub const PROFILE: &str = "/usr/share/containers/seccomp.json";

/// The profile cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SeccompError {
    /// No profile at all.
    #[error("read the seccomp profile: {0}")]
    Profile(String),
    /// An architecture that has no rules.
    #[error("find {0} in the seccomp profile")]
    Architecture(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    arch_map: Vec<Family>,
    #[serde(default)]
    syscalls: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Family {
    architecture: String,
    #[serde(default)]
    sub_architectures: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    names: Vec<String>,
    action: String,
    args: Option<Vec<Argument>>,
    errno_ret: Option<u32>,
    #[serde(default)]
    includes: Condition,
    #[serde(default)]
    excludes: Condition,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Deserialize, Default)]
struct Condition {
    #[serde(default)]
    caps: Vec<String>,
    #[serde(default)]
    arches: Vec<String>,
}

/// `linux.seccomp` for a guest's architecture (`x86_64`, `aarch64`) and a container's bounding
/// set.
pub fn convert(
    profile: &str,
    architecture: &str,
    capabilities: &BTreeSet<&str>,
) -> Result<Value, SeccompError> {
    let profile: Profile =
        serde_json::from_str(profile).map_err(|error| SeccompError::Profile(error.to_string()))?;
    let unknown = || SeccompError::Architecture(architecture.into());
    let (name, go_name) = match architecture {
        "x86_64" => ("SCMP_ARCH_X86_64", "amd64"),
        "aarch64" => ("SCMP_ARCH_AARCH64", "arm64"),
        _ => return Err(unknown()),
    };
    // A profile of one's own need not name any.
    let is_open = profile.arch_map.is_empty();
    let family = profile.arch_map.into_iter().find(|family| family.architecture == name);
    let architectures: Vec<String> = match family {
        Some(family) => {
            std::iter::once(family.architecture).chain(family.sub_architectures).collect()
        }
        None if is_open => vec![],
        None => return Err(unknown()),
    };
    let has = |name: &String| capabilities.contains(name.as_str());
    let applies = |rule: &&Rule| {
        let arches = &rule.includes.arches;
        (arches.is_empty() || arches.iter().any(|arch| arch == go_name))
            && !rule.excludes.arches.iter().any(|arch| arch == go_name)
            && rule.includes.caps.iter().all(has)
            && !rule.excludes.caps.iter().any(has)
    };
    let syscalls: Vec<Value> = profile.syscalls.iter().filter(applies).map(rule_json).collect();
    let mut seccomp = Map::new();
    seccomp.insert("defaultAction".into(), json!(profile.default_action));
    if let Some(errno) = profile.default_errno_ret {
        seccomp.insert("defaultErrnoRet".into(), json!(errno));
    }
    seccomp.insert("architectures".into(), json!(architectures));
    seccomp.insert("syscalls".into(), json!(syscalls));
    Ok(Value::Object(seccomp))
}

fn rule_json(rule: &Rule) -> Value {
    let mut json = Map::new();
    json.insert("names".into(), json!(rule.names));
    json.insert("action".into(), json!(rule.action));
    if let Some(errno) = rule.errno_ret {
        json.insert("errnoRet".into(), json!(errno));
    }
    let argument = |argument: &Argument| {
        let mut json =
            json!({ "index": argument.index, "value": argument.value, "op": argument.op });
        if argument.value_two != 0 {
            json["valueTwo"] = argument.value_two.into();
        }
        json
    };
    if let Some(arguments) = rule.args.as_ref().filter(|arguments| !arguments.is_empty()) {
        json.insert("args".into(), arguments.iter().map(argument).collect());
    }
    Value::Object(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "defaultErrno": "ENOSYS",
        "archMap": [
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": []}
        ],
        "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [], "includes": {}, "excludes": {}},
            {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "args": null,
             "includes": {"arches": ["amd64"]}},
            {"names": ["chroot"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_CHROOT"]}},
            {"names": ["chroot"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "errno": "EPERM",
             "excludes": {"caps": ["CAP_SYS_CHROOT"]}},
            {"names": ["socket"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 2, "value": 9, "valueTwo": 0, "op": "SCMP_CMP_NE"}]}
        ]
    }"#;

    fn names(seccomp: &Value) -> Vec<String> {
        let rules = seccomp["syscalls"].as_array().unwrap();
        let name = |rule: &Value| format!("{} {}", rule["names"][0], rule["action"]);
        rules.iter().map(|rule| name(rule).replace('"', "")).collect()
    }

    #[test]
    fn rules_follow_architecture_and_capabilities() {
        let with = convert(SMALL, "x86_64", &["CAP_SYS_CHROOT"].into()).unwrap();
        let expected = [
            "read SCMP_ACT_ALLOW",
            "arch_prctl SCMP_ACT_ALLOW",
            "chroot SCMP_ACT_ALLOW",
            "socket SCMP_ACT_ALLOW",
        ];
        assert_eq!(names(&with), expected);
        assert_eq!(with["architectures"], json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]));
        assert_eq!(with["defaultErrnoRet"], 38);
        let without = convert(SMALL, "aarch64", &BTreeSet::new()).unwrap();
        let expected = ["read SCMP_ACT_ALLOW", "chroot SCMP_ACT_ERRNO", "socket SCMP_ACT_ALLOW"];
        assert_eq!(names(&without), expected);
        assert_eq!(without["syscalls"][1]["errnoRet"], 1);
        assert_eq!(without["syscalls"][2]["args"][0]["op"], "SCMP_CMP_NE");
    }

    #[test]
    fn what_is_no_profile_is_refused() {
        let none = BTreeSet::new();
        assert!(matches!(convert("{}", "x86_64", &none), Err(SeccompError::Profile(_))));
        let error = SeccompError::Architecture("m68k".into());
        assert_eq!(convert(SMALL, "m68k", &none), Err(error));
    }
}
