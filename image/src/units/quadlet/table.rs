//! Every key of `[Container]` and `[Quadlet]` up to Podman 5.8, and its class for engine crun.

use crate::units::table::{Class, Key};

const NETWORK: &str = "needs a network that Podman makes";
const HEALTH: &str = "needs Podman's health checks";
const USER_NAMESPACE: &str = "needs a user namespace, which the engine crun does not make";
const LABELS: &str = "only matters with SELinux, which the guest has not";
const PULL: &str = "has no effect: the image is put into the appliance when it is built";
const PODMAN: &str = "needs Podman";
const NOT_YET: &str = "is not supported by the engine crun of this version";

const fn honoured(key: &'static str) -> Key {
    (key, Class::Honoured)
}

const fn harmless(key: &'static str, why: &'static str) -> Key {
    (key, Class::Harmless(why))
}

const fn refused(key: &'static str, why: &'static str) -> Key {
    (key, Class::Refused(why))
}

pub(super) const QUADLET: &[Key] = &[honoured("DefaultDependencies")];

pub(super) const CONTAINER: &[Key] = &[
    honoured("AddCapability"),
    honoured("Annotation"),
    honoured("ContainerName"),
    honoured("DropCapability"),
    honoured("Entrypoint"),
    honoured("Environment"),
    honoured("Exec"),
    honoured("Group"),
    honoured("HostName"),
    honoured("Image"),
    honoured("Label"),
    honoured("Mask"),
    honoured("Memory"),
    honoured("Network"),
    honoured("NoNewPrivileges"),
    honoured("PidsLimit"),
    honoured("ReadOnly"),
    honoured("ReadOnlyTmpfs"),
    honoured("ServiceName"),
    honoured("ShmSize"),
    honoured("StopSignal"),
    honoured("StopTimeout"),
    honoured("Sysctl"),
    honoured("Tmpfs"),
    honoured("Ulimit"),
    honoured("Unmask"),
    honoured("User"),
    honoured("Volume"),
    honoured("WorkingDir"),
    harmless("AutoUpdate", "has no effect: the appliance is rebuilt, not updated in place"),
    harmless("ExposeHostPort", "only describes the image"),
    harmless("HealthLogDestination", "only matters with `HealthCmd=`"),
    harmless("HealthMaxLogCount", "only matters with `HealthCmd=`"),
    harmless("HealthMaxLogSize", "only matters with `HealthCmd=`"),
    harmless("HealthInterval", "only matters with `HealthCmd=`"),
    harmless("HealthTimeout", "only matters with `HealthCmd=`"),
    harmless("HealthRetries", "only matters with `HealthCmd=`"),
    harmless("HealthStartPeriod", "only matters with `HealthCmd=`"),
    harmless("HealthStartupInterval", "only matters with `HealthStartupCmd=`"),
    harmless("HealthStartupRetries", "only matters with `HealthStartupCmd=`"),
    harmless("HealthStartupSuccess", "only matters with `HealthStartupCmd=`"),
    harmless("HealthStartupTimeout", "only matters with `HealthStartupCmd=`"),
    harmless("LogDriver", "has no effect: each unit has a log of its own"),
    harmless("LogOpt", "has no effect: each unit has a log of its own"),
    harmless("Pull", PULL),
    harmless("Retry", PULL),
    harmless("RetryDelay", PULL),
    harmless("SecurityLabelDisable", LABELS),
    harmless("SecurityLabelFileType", LABELS),
    harmless("SecurityLabelLevel", LABELS),
    harmless("SecurityLabelNested", LABELS),
    harmless("SecurityLabelType", LABELS),
    refused("AddDevice", NOT_YET),
    refused("AddHost", NOT_YET),
    refused("AppArmor", NOT_YET),
    refused("CgroupsMode", NOT_YET),
    refused("ContainersConfModule", PODMAN),
    refused("DNS", NETWORK),
    refused("DNSOption", NETWORK),
    refused("DNSSearch", NETWORK),
    refused("EnvironmentFile", NOT_YET),
    refused("EnvironmentHost", NOT_YET),
    refused("GIDMap", USER_NAMESPACE),
    refused("GlobalArgs", PODMAN),
    refused("GroupAdd", NOT_YET),
    refused("HealthCmd", HEALTH),
    refused("HealthOnFailure", HEALTH),
    refused("HealthStartupCmd", HEALTH),
    refused("HttpProxy", NOT_YET),
    refused("IP", NETWORK),
    refused("IP6", NETWORK),
    refused("Mount", NOT_YET),
    refused("NetworkAlias", NETWORK),
    refused("Notify", NOT_YET),
    refused("Pod", PODMAN),
    refused("PodmanArgs", PODMAN),
    refused("PublishPort", "needs a network that Podman makes; a `.socket` beside it does not"),
    refused("ReloadCmd", NOT_YET),
    refused("ReloadSignal", NOT_YET),
    refused("RemapGid", USER_NAMESPACE),
    refused("RemapUid", USER_NAMESPACE),
    refused("RemapUidSize", USER_NAMESPACE),
    refused("RemapUsers", USER_NAMESPACE),
    refused("Rootfs", NOT_YET),
    refused("RunInit", NOT_YET),
    refused("SeccompProfile", NOT_YET),
    refused("Secret", PODMAN),
    refused("StartWithPod", PODMAN),
    refused("SubGIDMap", USER_NAMESPACE),
    refused("SubUIDMap", USER_NAMESPACE),
    refused("Timezone", NOT_YET),
    refused("UIDMap", USER_NAMESPACE),
    refused("UserNS", USER_NAMESPACE),
    refused("VolatileTmp", NOT_YET),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn all_keys_of_podman_5_8_are_here_once() {
        let keys: BTreeSet<_> = CONTAINER.iter().map(|(key, _)| *key).collect();
        assert_eq!(keys.len(), CONTAINER.len());
        assert_eq!(keys.len(), 94);
    }
}
