//! Container images made for a test, and the forms that they are kept in.

use rouse::cache::Hash;
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip
    Gzip,
    /// zstd
    Zstd,
}

/// An image for one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its configuration's text.
    pub config: Vec<u8>,
    /// Its layers as they are kept.
    pub layers: Vec<Vec<u8>>,
    /// Its manifest's text.
    pub manifest: Vec<u8>,
}

/// The media type of a manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of an index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// `sha256:` and the hash.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", Hash::of(bytes))
}

/// Go's name of this machine.
pub fn machine() -> &'static str {
    if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }
}

/// An archive of some files: path, mode, content.
pub fn tar(files: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, mode, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(*mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, path, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

impl Image {
    /// An image with that `config`, and these archives as layers.
    pub fn new(architecture: &str, config: &Value, layers: &[(Vec<u8>, Compression)]) -> Self {
        let diff_ids: Vec<String> = layers.iter().map(|(tar, _)| digest(tar)).collect();
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = config.to_string().into_bytes();
        let kept: Vec<(Vec<u8>, &str)> = layers.iter().map(|layer| compressed(layer)).collect();
        let describe = |media_type: &str, bytes: &[u8]| {
            let kind = format!("application/vnd.oci.image.{media_type}");
            json!({ "mediaType": kind, "digest": digest(bytes), "size": bytes.len() })
        };
        let described: Vec<Value> = kept
            .iter()
            .map(|(bytes, ending)| describe(&format!("layer.v1.tar{ending}"), bytes))
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": describe("config.v1+json", &config),
            "layers": described,
        });
        let layers = kept.into_iter().map(|(bytes, _)| bytes).collect();
        Self { config, layers, manifest: manifest.to_string().into_bytes() }
    }

    /// Its manifest's digest.
    pub fn digest(&self) -> String {
        digest(&self.manifest)
    }

    /// What an index says about it.
    pub fn described(&self, architecture: &str) -> Value {
        json!({
            "mediaType": MANIFEST,
            "digest": self.digest(),
            "size": self.manifest.len(),
            "platform": { "os": "linux", "architecture": architecture },
        })
    }

    /// Adds it to an OCI image layout under a name.
    pub fn write_layout(&self, folder: &Path, name: &str) {
        let blobs = folder.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        for blob in self.layers.iter().chain([&self.config, &self.manifest]) {
            std::fs::write(blobs.join(Hash::of(blob).to_string()), blob).unwrap();
        }
        std::fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
        let path = folder.join("index.json");
        let old = std::fs::read(&path).unwrap_or_else(|_| br#"{"manifests": []}"#.to_vec());
        let old: Value = serde_json::from_slice(&old).unwrap();
        let mut entry = self.described(machine());
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
        let mut all = old["manifests"].as_array().unwrap().clone();
        all.push(entry);
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": all });
        std::fs::write(path, index.to_string()).unwrap();
    }

    /// Writes it as `docker save` does.
    pub fn write_docker_archive(&self, file: &Path, tag: &str) {
        let config = format!("{}.json", Hash::of(&self.config));
        let name = |layer: &Vec<u8>| format!("{}.tar", Hash::of(layer));
        let names: Vec<String> = self.layers.iter().map(name).collect();
        let manifest = json!([{ "Config": config, "RepoTags": [tag], "Layers": names }]);
        let mut files: Vec<(&str, u32, &[u8])> = vec![(&config, 0o644, &self.config)];
        for (name, layer) in names.iter().zip(&self.layers) {
            files.push((name, 0o644, layer));
        }
        let manifest = manifest.to_string();
        files.push(("manifest.json", 0o644, manifest.as_bytes()));
        std::fs::write(file, tar(&files)).unwrap();
    }
}

/// Puts a folder into an archive, in no particular order.
pub fn write_archive(folder: &Path, file: &Path) {
    let mut builder = tar::Builder::new(std::fs::File::create(file).unwrap());
    builder.append_dir_all(".", folder).unwrap();
    builder.finish().unwrap();
}

fn compressed((tar, compression): &(Vec<u8>, Compression)) -> (Vec<u8>, &'static str) {
    match compression {
        Compression::None => (tar.clone(), ""),
        Compression::Gzip => {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(tar).unwrap();
            (gzip.finish().unwrap(), "+gzip")
        }
        Compression::Zstd => (zstd::encode_all(&tar[..], 1).unwrap(), "+zstd"),
    }
}
