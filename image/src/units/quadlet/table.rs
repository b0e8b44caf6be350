//! Every key of `[Container]` and `[Quadlet]` up to Podman 5.8, and its class for engine crun.

use crate::units::table::{Class, Key};

const NETWORK: &str = "needs a network that Podman makes";
const CHECK_LOG: &str = "has no effect: what a check writes is in the unit's log";
const LABELS: &str = "only matters with SELinux, which the guest has not";
const PULL: &str = "has no effect: the image is put into the appliance when it is built";
const PODMAN: &str = "needs Podman";

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
    honoured("AddDevice"),
    honoured("AddHost"),
    honoured("Annotation"),
    honoured("AppArmor"),
    honoured("CgroupsMode"),
    honoured("ContainerName"),
    honoured("DNS"),
    honoured("DNSOption"),
    honoured("DNSSearch"),
    honoured("DropCapability"),
    honoured("Entrypoint"),
    honoured("Environment"),
    honoured("EnvironmentFile"),
    honoured("EnvironmentHost"),
    honoured("Exec"),
    honoured("GIDMap"),
    honoured("Group"),
    honoured("GroupAdd"),
    honoured("HealthCmd"),
    honoured("HealthInterval"),
    honoured("HealthOnFailure"),
    honoured("HealthRetries"),
    honoured("HealthStartPeriod"),
    honoured("HealthStartupCmd"),
    honoured("HealthStartupInterval"),
    honoured("HealthStartupRetries"),
    honoured("HealthStartupSuccess"),
    honoured("HealthStartupTimeout"),
    honoured("HealthTimeout"),
    honoured("HostName"),
    honoured("HttpProxy"),
    honoured("Image"),
    honoured("Label"),
    honoured("LogDriver"),
    honoured("LogOpt"),
    honoured("Mask"),
    honoured("Memory"),
    honoured("Mount"),
    honoured("Network"),
    honoured("NoNewPrivileges"),
    honoured("Notify"),
    honoured("PidsLimit"),
    honoured("PodmanArgs"),
    honoured("ReadOnly"),
    honoured("ReadOnlyTmpfs"),
    honoured("ReloadCmd"),
    honoured("ReloadSignal"),
    honoured("RemapGid"),
    honoured("RemapUid"),
    honoured("RemapUidSize"),
    honoured("RemapUsers"),
    honoured("Rootfs"),
    honoured("RunInit"),
    honoured("SeccompProfile"),
    honoured("Secret"),
    honoured("ServiceName"),
    honoured("ShmSize"),
    honoured("StopSignal"),
    honoured("StopTimeout"),
    honoured("SubGIDMap"),
    honoured("SubUIDMap"),
    honoured("Sysctl"),
    honoured("Timezone"),
    honoured("Tmpfs"),
    honoured("UIDMap"),
    honoured("Ulimit"),
    honoured("Unmask"),
    honoured("User"),
    honoured("UserNS"),
    honoured("VolatileTmp"),
    honoured("Volume"),
    honoured("WorkingDir"),
    harmless("AutoUpdate", "has no effect: the appliance is rebuilt, not updated in place"),
    harmless("ExposeHostPort", "only describes the image"),
    harmless("HealthLogDestination", CHECK_LOG),
    harmless("HealthMaxLogCount", CHECK_LOG),
    harmless("HealthMaxLogSize", CHECK_LOG),
    harmless("Pull", PULL),
    harmless("Retry", PULL),
    harmless("RetryDelay", PULL),
    harmless("SecurityLabelDisable", LABELS),
    harmless("SecurityLabelFileType", LABELS),
    harmless("SecurityLabelLevel", LABELS),
    harmless("SecurityLabelNested", LABELS),
    harmless("SecurityLabelType", LABELS),
    refused("ContainersConfModule", PODMAN),
    refused("GlobalArgs", PODMAN),
    refused("IP", NETWORK),
    refused("IP6", NETWORK),
    refused("NetworkAlias", NETWORK),
    refused("Pod", PODMAN),
    refused("PublishPort", "needs a network that Podman makes; a `.socket` beside it does not"),
    refused("StartWithPod", PODMAN),
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
