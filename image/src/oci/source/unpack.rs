//! From an image in the cache to files and what to run of them.

use super::apply::apply;
use super::layer::{LARGEST, Layer, LayerError};
use super::manifest::{Healthcheck, Settings};
use super::{SourceError, Stored};
use crate::debian::Architecture;
use crate::oci::{ContainerImage, HealthCheck};
use crate::terminal::{Measure, Task};
use crate::tree::Tree;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// The layers that were read so far, by the hashes of what is in them. Images that share a layer
/// share its files: they become hard links of each other in the guest, where nobody writes to
/// them, so that each is there once.
#[derive(Default)]
pub struct Layers(BTreeMap<String, Arc<Layer>>);

impl Layers {
    /// Unpacks an image, which `Image=` calls `reference`.
    pub fn unpack(
        &mut self,
        reference: &str,
        stored: &Stored,
        wanted: Architecture,
    ) -> Result<ContainerImage, SourceError> {
        let config = &stored.config;
        let fits = matches!(config.os.as_str(), "" | "linux")
            && (config.architecture.is_empty() || config.architecture == wanted.debian());
        if !fits {
            let has = vec![format!("{}/{}", config.os, config.architecture)];
            return Err(SourceError::NoArchitecture { what: reference.into(), wanted, has });
        }
        if config.rootfs.diff_ids.len() != stored.layers.len() {
            let (known, there) = (config.rootfs.diff_ids.len(), stored.layers.len());
            let message = format!("its configuration knows {known} layers, there are {there}");
            return Err(SourceError::Malformed { what: reference.into(), message });
        }
        let size = stored.manifest.layers.iter().map(|layer| layer.size).sum();
        let task = Task::begin(format!("unpacking {reference}"), Measure::Bytes, size);
        let origin: Arc<str> = format!("image {reference}").into();
        let mut files = Tree::plain();
        let mut left = LARGEST;
        for (path, expected) in stored.layers.iter().zip(&config.rootfs.diff_ids) {
            let wrong = |source| SourceError::Layer { reference: reference.into(), source };
            let layer = self.layer(path, expected, left, &task).map_err(wrong)?;
            apply(&mut files, &layer, &origin).map_err(wrong)?;
            left = LARGEST.saturating_sub(files.size()).max(1);
        }
        let settings = config.config.clone().unwrap_or_default();
        Ok(describe(ContainerImage::new(reference, files), settings))
    }

    fn layer(
        &mut self,
        path: &Path,
        expected: &str,
        limit: u64,
        task: &Task,
    ) -> Result<Arc<Layer>, LayerError> {
        if let Some(layer) = self.0.get(expected) {
            return Ok(layer.clone());
        }
        let (layer, got) = Layer::read(File::open(path)?, limit, |bytes| task.advance(bytes))?;
        let got = format!("sha256:{got}");
        if got != expected {
            return Err(LayerError::WrongContent { expected: expected.into(), got });
        }
        let layer = Arc::new(layer);
        self.0.insert(got, layer.clone());
        Ok(layer)
    }
}

/// Empty texts mean nothing, as everywhere.
fn describe(image: ContainerImage, settings: Settings) -> ContainerImage {
    let text = |value: Option<String>| value.filter(|value| !value.is_empty());
    let keys = |map: Option<BTreeMap<String, serde::de::IgnoredAny>>| {
        map.unwrap_or_default().into_keys().collect()
    };
    let pair = |text: String| match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), value.to_owned()),
        None => (text, String::new()),
    };
    ContainerImage {
        entrypoint: settings.entrypoint.unwrap_or_default(),
        command: settings.cmd.unwrap_or_default(),
        environment: settings.env.unwrap_or_default().into_iter().map(pair).collect(),
        user: text(settings.user),
        working_directory: text(settings.working_dir),
        stop_signal: text(settings.stop_signal),
        volumes: keys(settings.volumes),
        exposed_ports: keys(settings.exposed_ports),
        labels: settings.labels.unwrap_or_default(),
        health_check: settings.healthcheck.and_then(health_check),
        ..image
    }
}

fn health_check(check: Healthcheck) -> Option<HealthCheck> {
    let test = check.test.filter(|test| !test.is_empty())?;
    let time = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok()).unwrap_or(0);
    Some(HealthCheck {
        test,
        interval_ns: time(check.interval),
        timeout_ns: time(check.timeout),
        start_period_ns: time(check.start_period),
        start_interval_ns: time(check.start_interval),
        retries: u32::try_from(time(check.retries)).unwrap_or(u32::MAX),
    })
}
