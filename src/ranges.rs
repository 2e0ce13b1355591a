//! Files of ranges: what calibration chose for every value of a network, to be looked at, edited and given
//! again.
//!
//! A file is JSON with a tensor a line:
//!
//! ```json
//! {"equalised": false, "tensors": [
//! {"part": 0, "tensor": "%images", "op": "argument", "min": 0.0, "max": 1.0},
//! {"part": 0, "tensor": "%conv1", "op": "tosa.conv2d", "min": -2.5, "max": 3.25}
//! ]}
//! ```
//!
//! Ranges are given on top of a calibration: a value that the file leaves out keeps the range that is chosen
//! for it, and one whose range is just what would be chosen changes nothing. Equalised networks have other
//! ranges, so ranges of one are not taken for the other.

use serde::{Deserialize, Serialize};
use strata_passes::quantise::TensorRange;

/// The ranges of a network's values.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RangeFile {
    /// Whether the channels of the network were equalised.
    pub equalised: bool,
    /// The ranges, in the order in which values are computed.
    pub tensors: Vec<TensorRange>,
}

/// Why a text is no file of ranges.
#[derive(Debug, thiserror::Error)]
pub enum RangeFileError {
    /// It is not the JSON that is expected.
    #[error("not a file of ranges: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Ranges that are none; all of them.
    #[error("ranges that are none: {}", .0.join("; "))]
    Impossible(Vec<String>),
}

impl RangeFile {
    /// Reads a file.
    ///
    /// # Errors
    /// If it is not such JSON, or a range is none.
    pub fn from_json(text: &str) -> Result<Self, RangeFileError> {
        // Lines may be taken out: also the last.
        let without =
            text.trim_end().strip_suffix("]}").map(str::trim_end).and_then(|rest| rest.strip_suffix(','));
        let text = without.map_or_else(|| text.to_owned(), |rest| format!("{rest}\n]}}"));
        let file: Self = serde_json::from_str(&text)?;
        let fault = |range: &TensorRange| {
            let TensorRange { tensor, min, max, .. } = range;
            let is_range = min.is_finite() && max.is_finite() && min <= max;
            (!is_range).then(|| format!("`{tensor}` from {min} to {max}"))
        };
        let mut faults: Vec<String> = file.tensors.iter().filter_map(fault).collect();
        for (at, range) in file.tensors.iter().enumerate() {
            let is_same = |other: &&TensorRange| (other.part, &other.tensor) == (range.part, &range.tensor);
            if file.tensors[..at].iter().any(|other| is_same(&other)) {
                faults.push(format!("`{}` stands twice", range.tensor));
            }
        }
        if faults.is_empty() { Ok(file) } else { Err(RangeFileError::Impossible(faults)) }
    }

    /// The text of a file.
    pub fn to_json(&self) -> String {
        let line = |range: &TensorRange| serde_json::to_string(range).unwrap_or_default();
        let lines: Vec<String> = self.tensors.iter().map(line).collect();
        format!("{{\"equalised\": {}, \"tensors\": [\n{}\n]}}\n", self.equalised, lines.join(",\n"))
    }

    /// The ranges of a part of a model.
    pub fn of_part(&self, part: usize) -> Vec<TensorRange> {
        self.tensors.iter().filter(|range| range.part == part).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_a_tensor_a_line() {
        let range = |part, tensor: &str| TensorRange {
            part,
            tensor: tensor.to_owned(),
            op: "tosa.add".to_owned(),
            min: -0.1,
            max: 3.402_823_5e38,
        };
        let file = RangeFile { equalised: true, tensors: vec![range(0, "%a"), range(1, "%a")] };
        let text = file.to_json();
        assert_eq!(text.lines().count(), 4);
        assert_eq!(RangeFile::from_json(&text).expect("it is one"), file);
        assert_eq!(file.of_part(1), [range(1, "%a")]);
        assert_eq!(
            RangeFile::from_json(&RangeFile::default().to_json()).expect("empty"),
            RangeFile::default()
        );
    }

    #[test]
    fn what_is_wrong_is_told() {
        let told = |tensors: &str| {
            let text = format!("{{\"equalised\": false, \"tensors\": [{tensors}]}}");
            RangeFile::from_json(&text).expect_err("it is wrong").to_string()
        };
        let low = r#"{"tensor": "%a", "op": "x", "min": 2, "max": 1}"#;
        let twice = r#"{"tensor": "%a", "op": "x", "min": 0, "max": 1}"#;
        assert_eq!(
            told(&format!("{low}, {twice}")),
            "ranges that are none: `%a` from 2 to 1; `%a` stands twice"
        );
        assert!(told(r#"{"tensor": "%a"}"#).contains("missing field `op` at line 1"));
        assert!(told(r#"{"tensr": "%a"}"#).contains("unknown field `tensr`"));
    }
}
