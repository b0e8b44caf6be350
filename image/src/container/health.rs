//! `HealthCmd=` and its kin, as written.

use super::Written;

/// Health checks of a container.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Health {
    /// `HealthCmd=`
    pub command: Option<Written>,
    /// `HealthInterval=`
    pub interval: Option<Written>,
    /// `HealthTimeout=`
    pub timeout: Option<Written>,
    /// `HealthRetries=`
    pub retries: Option<Written>,
    /// `HealthStartPeriod=`
    pub start_period: Option<Written>,
    /// `HealthOnFailure=`
    pub on_failure: Option<Written>,
    /// `HealthStartupCmd=`
    pub startup_command: Option<Written>,
    /// `HealthStartupInterval=`
    pub startup_interval: Option<Written>,
    /// `HealthStartupTimeout=`
    pub startup_timeout: Option<Written>,
    /// `HealthStartupRetries=`
    pub startup_retries: Option<Written>,
    /// `HealthStartupSuccess=`
    pub startup_success: Option<Written>,
    /// `HealthLogDestination=`
    pub log_destination: Option<Written>,
    /// `HealthMaxLogCount=`
    pub max_log_count: Option<Written>,
    /// `HealthMaxLogSize=`
    pub max_log_size: Option<Written>,
}
