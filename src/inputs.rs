//! Which input of a network a user means, and whether what is given fits it.
//!
//! An input goes by its name or by its position. Models name inputs by numbers too, so a number has two
//! readings: that of names, where a number that is some input's name means that input, and that of positions.
//! Whichever gives every input exactly one array is meant. If both do and differ, nobody can tell, and it is
//! an error; `#N` is always the position.

use std::borrow::Cow;

use strata_isa_spec::bundle::Port;

use crate::io::Array;
use crate::ports::{RunError, dtype_of};

/// The input that each of `names` means, by index; `None` where there is none.
///
/// # Errors
/// If the names can be read in two ways.
pub(crate) fn assign(ports: &[Port], names: &[&str]) -> Result<Vec<Option<usize>>, String> {
    let read = |positions_first: bool| -> Vec<Option<usize>> {
        names.iter().map(|name| meant(ports, name, positions_first)).collect()
    };
    let (by_name, by_position) = (read(false), read(true));
    let is_whole = |reading: &[Option<usize>]| {
        let mut found: Vec<usize> = reading.iter().copied().flatten().collect();
        found.sort_unstable();
        found.iter().copied().eq(0..ports.len()) && reading.len() == ports.len()
    };
    match (is_whole(&by_name), is_whole(&by_position)) {
        (true, true) if by_name != by_position => {
            let two = |(name, (&n, &p)): (&&str, (&Option<usize>, &Option<usize>))| {
                let (n, p) = (n?, p?);
                let other = &ports.get(p)?.name;
                (n != p).then(|| {
                    format!("`{name}` is the name of input #{n} and the position of input `{other}`")
                })
            };
            let readings: Vec<String> =
                names.iter().zip(by_name.iter().zip(&by_position)).filter_map(two).collect();
            Err(format!("{}; write #N for a position", readings.join(", ")))
        }
        (false, true) => Ok(by_position),
        _ => Ok(by_name),
    }
}

/// Whether names mean inputs by their positions.
pub(crate) fn are_positions(ports: &[Port], names: &[&str]) -> bool {
    let position = |name: &&str| number(name).filter(|&at| at < ports.len());
    let positions: Option<Vec<usize>> = names.iter().map(position).collect();
    let assigned = assign(ports, names).unwrap_or_default();
    !names.is_empty() && positions.is_some_and(|all| all.into_iter().map(Some).eq(assigned))
}

/// The number that a position is written as.
fn number(name: &str) -> Option<usize> {
    name.strip_prefix('#').unwrap_or(name).parse().ok()
}

/// The input that one name means, in one of the two readings.
fn meant(ports: &[Port], name: &str, positions_first: bool) -> Option<usize> {
    let by_name = || ports.iter().position(|port| port.name == name);
    let by_position = || number(name).filter(|&at| at < ports.len());
    // Only a plain number can be a position before it is a name.
    if positions_first && !name.starts_with('#') {
        by_position().or_else(by_name)
    } else {
        by_name().or_else(by_position)
    }
}

/// The tensors of `ports`, from what a user gave by name or by position.
///
/// # Errors
/// If one is missing, unknown, given twice, of another shape, or holds what its type cannot; all problems at
/// once.
pub(crate) fn match_inputs<'a>(
    ports: &[Port],
    given: &'a [(String, Array)],
) -> Result<Vec<Cow<'a, Array>>, RunError> {
    let names: Vec<&str> = given.iter().map(|(name, _)| name.as_str()).collect();
    let assigned = assign(ports, &names).map_err(|problem| RunError::Inputs { problems: vec![problem] })?;
    let mut problems = Vec::new();
    let mut found: Vec<Option<&Array>> = vec![None; ports.len()];
    for ((name, array), at) in given.iter().zip(assigned) {
        let Some(at) = at else {
            let names = ports.iter().map(|port| format!("`{}`", port.name)).collect::<Vec<_>>().join(", ");
            problems.push(format!("there is no input `{name}`; the inputs are {names}"));
            continue;
        };
        if found[at].replace(array).is_some() {
            problems.push(format!("input `{}` is given twice", ports[at].name));
        }
    }
    fit(ports, &found, problems)
}

/// Arrays as the inputs take them, which each fit.
///
/// # Errors
/// As [`match_inputs`]; `problems` are those that are known already.
pub(crate) fn fit<'a>(
    ports: &[Port],
    found: &[Option<&'a Array>],
    mut problems: Vec<String>,
) -> Result<Vec<Cow<'a, Array>>, RunError> {
    let mut arrays = Vec::with_capacity(ports.len());
    for (at, port) in ports.iter().enumerate() {
        let Port { name, shape, .. } = port;
        let Some(&Some(array)) = found.get(at) else {
            problems.push(format!("input `{name}` of shape {shape:?} is missing"));
            continue;
        };
        if array.shape != *shape {
            problems.push(format!("input `{name}`: expected shape {shape:?}, found {:?}", array.shape));
            continue;
        }
        if let Some(value) = array.beyond_f32() {
            problems.push(format!("input `{name}`: {value} is beyond f32, in which networks are computed"));
            continue;
        }
        let dtype = dtype_of(&port.dtype)?;
        if array.dtype == dtype && array.is_of_its_type() {
            arrays.push(Cow::Borrowed(array));
            continue;
        }
        match array.clone().cast(dtype) {
            Ok(array) => arrays.push(Cow::Owned(array)),
            Err(what) => problems.push(format!("input `{name}`: {what}")),
        }
    }
    if problems.is_empty() { Ok(arrays) } else { Err(RunError::Inputs { problems }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::plain_port;

    fn ports(names: &[&str]) -> Vec<Port> {
        names.iter().map(|name| plain_port(name, &[1], "f32")).collect()
    }

    #[test]
    fn numbers_are_names_or_positions_whichever_fits_all() {
        let cases: [(&[&str], &[&str], &[usize]); 7] = [
            (&["x", "y"], &["1", "0"], &[1, 0]),
            (&["x", "y"], &["y", "0"], &[1, 0]),
            // The name of the first input is the position of the second.
            (&["1", "x"], &["0", "1"], &[0, 1]),
            (&["1", "x"], &["1", "x"], &[0, 1]),
            (&["1", "0"], &["#0", "#1"], &[0, 1]),
            (&["0", "1"], &["0", "1"], &[0, 1]),
            (&["7"], &["7"], &[0]),
        ];
        for (inputs, names, expected) in cases {
            let expected: Vec<_> = expected.iter().copied().map(Some).collect();
            assert_eq!(assign(&ports(inputs), names), Ok(expected), "{inputs:?} {names:?}");
        }
    }

    #[test]
    fn two_readings_that_differ_are_an_error_that_tells_both() {
        let error = assign(&ports(&["1", "0"]), &["0", "1"]).expect_err("nobody can tell");
        assert!(error.contains("`0` is the name of input #1 and the position of input `1`"), "{error}");
        let array = || Array::f32(vec![1], vec![0.0]);
        let given = [("0".to_owned(), array()), ("1".to_owned(), array())];
        assert!(match_inputs(&ports(&["1", "0"]), &given).is_err());
    }

    #[test]
    fn names_that_are_positions_are_told_from_others() {
        let numbered = ports(&["0", "1"]);
        assert!(are_positions(&numbered, &["0", "1"]));
        assert!(are_positions(&ports(&["1", "x"]), &["0", "1"]));
        assert!(!are_positions(&ports(&["1", "x"]), &["1", "x"]));
        assert!(!are_positions(&ports(&["7"]), &["7"]) && !are_positions(&numbered, &[]));
    }

    #[test]
    fn doubles_that_no_f32_holds_are_refused() {
        let port = [plain_port("x", &[1], "f64")];
        let array = Array { shape: vec![1], dtype: dtype_of("f64").expect("a type"), values: vec![2.4e198] };
        let error = match_inputs(&port, &[("x".to_owned(), array)]).expect_err("it is beyond f32");
        assert!(error.to_string().contains("is beyond f32"), "{error}");
    }

    #[test]
    fn arrays_take_the_types_of_their_inputs_or_are_refused() {
        let port = [plain_port("x", &[2], "u8")];
        let given = |values: &[f32]| [("x".to_owned(), Array::f32(vec![2], values.to_vec()))];
        let bytes = given(&[3.0, 255.0]);
        let taken = match_inputs(&port, &bytes).expect("bytes");
        assert_eq!((taken[0].dtype.name(), &taken[0].values[..]), ("u8", &[3.0, 255.0][..]));
        let refused = match_inputs(&port, &given(&[0.5, 256.0])).expect_err("no bytes").to_string();
        assert!(refused.contains("input `x`: element 0 is 0.5, which is no u8"), "{refused}");
    }
}
