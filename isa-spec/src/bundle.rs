//! The bundle: a compiled network as one `.strata` file.
//!
//! A ZIP archive with stored (uncompressed) entries, so that any ZIP tool lists and extracts it: `manifest.json`,
//! `program.bin`, `weights.safetensors`, `debug.json`, `host.mlir` where a tail of the network runs on the host, and
//! the IR of each phase when asked for. The manifest holds the hash of every other entry. The same content gives the
//! same bytes: entries stand in a fixed order with a fixed time.

use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write};

use serde::{Deserialize, Serialize};

use crate::codec::{DecodeError, decode, encode};
use crate::program::Program;
use crate::target::Target;

/// Version of the bundle format.
pub const FORMAT_VERSION: u32 = 1;
/// The one tensor of `weights.safetensors`.
const WEIGHTS_TENSOR: &str = "weights";
/// Bytes of an entry at most.
const MAX_ENTRY_BYTES: u64 = 1 << 34;

/// Why bytes are not a bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Not a ZIP archive, or a damaged one.
    #[error("not a bundle: {0}")]
    Archive(String),
    /// An entry is missing.
    #[error("the bundle has no `{0}`")]
    Missing(&'static str),
    /// An entry's bytes are not those that the manifest names.
    #[error("`{entry}` is damaged: its hash is {found}, the manifest says {expected}")]
    Hash {
        /// The entry.
        entry: String,
        /// What the manifest says.
        expected: String,
        /// What was found.
        found: String,
    },
    /// An entry cannot be read as what it should be.
    #[error("`{entry}`: {reason}")]
    Malformed {
        /// The entry.
        entry: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The program does not decode.
    #[error("`program.bin`: {0}")]
    Program(#[from] DecodeError),
    /// Another version of the format.
    #[error("bundle format {found}, this build reads {FORMAT_VERSION}")]
    Version {
        /// The version found.
        found: u32,
    },
}

/// How an integer tensor stands for real numbers: `real = scale * (q - zero_point)`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quantisation {
    /// Step.
    pub scale: f64,
    /// The integer that stands for zero.
    pub zero_point: i32,
}

/// A network input or output as its user sees it, and as the machine holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Port {
    /// The ONNX name.
    pub name: String,
    /// The user's shape.
    pub shape: Vec<usize>,
    /// The user's element type: `f32`, `i64`, …
    pub dtype: String,
    /// The machine's shape, dense row-major in the DRAM segment.
    pub machine_shape: Vec<usize>,
    /// The machine's element type: `i8`, `i32`.
    pub machine_dtype: String,
    /// For inputs the permutation from the user's axes to the machine's, for outputs from the machine's to the user's.
    pub perm: Vec<usize>,
    /// What the integers mean; absent for integers that are meant as such.
    pub quantisation: Option<Quantisation>,
}

/// What a bundle says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT_VERSION`].
    pub format: u32,
    /// What made it: name and version.
    pub producer: String,
    /// The network's name.
    pub network: String,
    /// The machine it is for.
    pub target: Target,
    /// Inputs, in the order of the program's input segments.
    pub inputs: Vec<Port>,
    /// Outputs, in the order of the program's output segments.
    pub outputs: Vec<Port>,
    /// Outputs of the whole network, if a host tail follows the machine; else as `outputs`.
    pub host_outputs: Option<Vec<Port>>,
    /// blake3 of every other entry.
    pub hashes: BTreeMap<String, String>,
}

/// A compiled network.
#[derive(Clone, Debug, PartialEq)]
pub struct Bundle {
    /// What it says of itself. `hashes` is filled by [`to_bytes`](Self::to_bytes).
    pub manifest: Manifest,
    /// The program.
    pub program: Program,
    /// The weight segment.
    pub weights: Vec<u8>,
    /// Names of source layers, by `source` index.
    pub names: Vec<String>,
    /// The statistics of the plan, as JSON.
    pub stats: Option<serde_json::Value>,
    /// The IR of the host tail, as text with its constants inline.
    pub host: Option<String>,
    /// IR dumps by phase name.
    pub dumps: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct Debug {
    names: Vec<String>,
    stats: Option<serde_json::Value>,
}

impl Bundle {
    /// The file's bytes.
    ///
    /// # Errors
    /// If the archive cannot be written (an entry beyond ZIP's limits).
    pub fn to_bytes(&self) -> Result<Vec<u8>, BundleError> {
        let json = |entry: &'static str, value: serde_json::Result<Vec<u8>>| {
            value.map_err(|e| BundleError::Malformed { entry, reason: e.to_string() })
        };
        let debug = Debug { names: self.names.clone(), stats: self.stats.clone() };
        let view = safetensors::tensor::TensorView::new(
            safetensors::Dtype::U8,
            vec![self.weights.len()],
            &self.weights,
        )
        .map_err(|e| BundleError::Malformed { entry: "weights.safetensors", reason: e.to_string() })?;
        let weights = safetensors::serialize([(WEIGHTS_TENSOR, view)], None)
            .map_err(|e| BundleError::Malformed { entry: "weights.safetensors", reason: e.to_string() })?;
        let mut entries = vec![
            ("program.bin".to_owned(), encode(&self.program)),
            ("weights.safetensors".to_owned(), weights),
            ("debug.json".to_owned(), json("debug.json", serde_json::to_vec_pretty(&debug))?),
        ];
        entries.extend(self.host.iter().map(|h| ("host.mlir".to_owned(), h.clone().into_bytes())));
        entries.extend(
            self.dumps.iter().map(|(name, text)| (format!("ir/{name}.mlir"), text.clone().into_bytes())),
        );
        let mut manifest = self.manifest.clone();
        manifest.format = FORMAT_VERSION;
        manifest.hashes =
            entries.iter().map(|(n, bytes)| (n.clone(), blake3::hash(bytes).to_hex().to_string())).collect();
        let manifest = json("manifest.json", serde_json::to_vec_pretty(&manifest))?;
        entries.insert(0, ("manifest.json".to_owned(), manifest));

        let archive = |e: zip::result::ZipError| BundleError::Archive(e.to_string());
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in entries {
            let options = zip::write::SimpleFileOptions::default()
                .compression_method(zip::CompressionMethod::Stored)
                .last_modified_time(zip::DateTime::default())
                .with_alignment(64)
                .large_file(bytes.len() as u64 >= u64::from(u32::MAX));
            zip.start_file(name, options).map_err(archive)?;
            zip.write_all(&bytes).map_err(|e| BundleError::Archive(e.to_string()))?;
        }
        Ok(zip.finish().map_err(archive)?.into_inner())
    }

    /// The bundle that a file's bytes hold. The program is decoded, not yet verified.
    ///
    /// # Errors
    /// If they are not a bundle of this format, or an entry is missing, damaged or malformed.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BundleError> {
        let archive = |e: &dyn std::fmt::Display| BundleError::Archive(e.to_string());
        let mut zip = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|e| archive(&e))?;
        let mut entries: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for index in 0..zip.len() {
            let file = zip.by_index(index).map_err(|e| archive(&e))?;
            let name = file.name().map_err(|e| archive(&e))?.into_owned();
            let mut content = Vec::new();
            // A stored entry cannot be larger than the file that holds it, whatever its header claims.
            let limit = MAX_ENTRY_BYTES.min(bytes.len() as u64);
            file.take(limit + 1).read_to_end(&mut content).map_err(|e| archive(&format!("`{name}`: {e}")))?;
            if content.len() as u64 > limit {
                return Err(archive(&format!("`{name}` is larger than {limit} bytes")));
            }
            entries.insert(name, content);
        }
        let mut take = |name: &'static str| entries.remove(name).ok_or(BundleError::Missing(name));
        let malformed = |entry: &'static str| {
            move |e: serde_json::Error| BundleError::Malformed { entry, reason: e.to_string() }
        };
        let manifest_bytes = take("manifest.json")?;
        let version: serde_json::Value =
            serde_json::from_slice(&manifest_bytes).map_err(malformed("manifest.json"))?;
        match version.get("format").and_then(serde_json::Value::as_u64) {
            Some(found) if found == u64::from(FORMAT_VERSION) => {}
            found => {
                let found = found.and_then(|f| u32::try_from(f).ok()).unwrap_or(0);
                return Err(BundleError::Version { found });
            }
        }
        let manifest: Manifest = serde_json::from_value(version).map_err(malformed("manifest.json"))?;
        let program = take("program.bin")?;
        let weights = take("weights.safetensors")?;
        let debug = take("debug.json")?;
        let host = entries.remove("host.mlir");
        let fixed = [
            ("program.bin", Some(&program)),
            ("weights.safetensors", Some(&weights)),
            ("debug.json", Some(&debug)),
            ("host.mlir", host.as_ref()),
        ];
        let fixed = fixed.into_iter().filter_map(|(n, b)| b.map(|b| (n, b)));
        for (name, content) in fixed.chain(entries.iter().map(|(n, b)| (n.as_str(), b))) {
            let found = blake3::hash(content).to_hex().to_string();
            let expected = manifest.hashes.get(name).cloned().unwrap_or_else(|| "nothing".to_owned());
            if found != expected {
                return Err(BundleError::Hash { entry: name.to_owned(), expected, found });
            }
        }
        let present = |name: &String| {
            let fixed = ["program.bin", "weights.safetensors", "debug.json"].contains(&name.as_str());
            fixed || entries.contains_key(name) || (name == "host.mlir" && host.is_some())
        };
        if let Some(name) = manifest.hashes.keys().find(|&n| !present(n)) {
            return Err(archive(&format!("`{name}`, which the manifest names, is missing")));
        }
        let tensors = safetensors::SafeTensors::deserialize(&weights)
            .and_then(|t| t.tensor(WEIGHTS_TENSOR).map(|t| t.data().to_vec()))
            .map_err(|e| BundleError::Malformed { entry: "weights.safetensors", reason: e.to_string() })?;
        let debug: Debug = serde_json::from_slice(&debug).map_err(malformed("debug.json"))?;
        let text = |entry: &'static str, bytes: Vec<u8>| {
            String::from_utf8(bytes).map_err(|e| BundleError::Malformed { entry, reason: e.to_string() })
        };
        let mut dumps = BTreeMap::new();
        for (name, content) in entries {
            let phase = name.strip_prefix("ir/").and_then(|n| n.strip_suffix(".mlir"));
            let Some(phase) = phase else {
                return Err(archive(&format!("unexpected entry `{name}`")));
            };
            dumps.insert(phase.to_owned(), text("ir", content)?);
        }
        Ok(Self {
            manifest,
            program: decode(&program)?,
            weights: tensors,
            names: debug.names,
            stats: debug.stats,
            host: host.map(|h| text("host.mlir", h)).transpose()?,
            dumps,
        })
    }
}
