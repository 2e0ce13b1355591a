//! A machine as the header of a file names it: a preset, and what differs from it.

use serde_json::Value;
use strata_isa_spec::Target;
use strata_passes::testing;

/// The words of a machine, `x1 memory.activation=65536`; `None` if it is not of a preset.
pub(crate) fn words(target: &Target) -> Option<String> {
    let preset = Target::preset(&target.name, &[]).ok()?;
    let (mut before, mut now) = (Vec::new(), Vec::new());
    fields("", &serde_json::to_value(&preset).ok()?, &mut before);
    fields("", &serde_json::to_value(target).ok()?, &mut now);
    let changed = now.into_iter().filter(|field| !before.contains(field));
    let words: String = changed.map(|(name, value)| format!(" {name}={value}")).collect();
    let words = target.name.clone() + &words;
    // What the words say is what counts.
    (testing::target(&words).as_ref() == Ok(target)).then_some(words)
}

/// The fields of a value, by their dotted names.
fn fields(prefix: &str, value: &Value, out: &mut Vec<(String, String)>) {
    match value {
        Value::Object(entries) => {
            for (name, value) in entries {
                let dot = if prefix.is_empty() { "" } else { "." };
                fields(&format!("{prefix}{dot}{name}"), value, out);
            }
        }
        Value::String(text) => out.push((prefix.to_owned(), text.clone())),
        other => out.push((prefix.to_owned(), other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_the_preset_is_said() {
        for preset in Target::presets() {
            let target = Target::preset(preset, &[]).expect("a preset");
            assert_eq!(words(&target).as_deref(), Some(preset));
        }
        let text = "x1 memory.activation=65536";
        assert_eq!(words(&testing::target(text).expect("it is one")).as_deref(), Some(text));
        let own = Target { name: "own".to_owned(), ..Target::preset("x1", &[]).expect("a preset") };
        assert_eq!(words(&own), None);
    }
}
