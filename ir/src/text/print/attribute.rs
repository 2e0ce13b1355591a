//! Attributes and types as text.

use std::fmt::{self, Write};

use super::fill::BREAK;
use super::handles::{Handles, is_splat};
use crate::attr::{Attribute, Elements, FunctionType};
use crate::tensor::{Tensor, TensorData};
use crate::text::syntax::{push_f32, push_f64, push_name, push_quoted};
use crate::types::{ElemType, Type};

/// Appends what stands before item `index` of a list.
pub(super) fn push_comma(out: &mut String, index: usize) {
    if index > 0 {
        out.push(',');
        out.push(BREAK);
    }
}

pub(super) fn push_dict<'a, K: AsRef<str> + 'a>(
    out: &mut String,
    entries: impl Iterator<Item = (&'a K, &'a Attribute)>,
    handles: &Handles,
) {
    out.push('{');
    for (i, (name, value)) in entries.enumerate() {
        push_comma(out, i);
        push_name(out, name.as_ref());
        if *value != Attribute::Unit {
            out.push_str(" = ");
            push_attribute(out, value, handles);
        }
    }
    out.push('}');
}

fn push_list<T>(out: &mut String, items: &[T], mut push: impl FnMut(&mut String, &T)) {
    for (i, item) in items.iter().enumerate() {
        push_comma(out, i);
        push(out, item);
    }
}

fn push_display(out: &mut String, value: impl fmt::Display) {
    write!(out, "{value}").expect("writing to a string does not fail");
}

pub(super) fn push_attribute(out: &mut String, attr: &Attribute, handles: &Handles) {
    match attr {
        Attribute::Unit => out.push_str("unit"),
        Attribute::Bool(b) => push_display(out, b),
        Attribute::Int(value, ElemType::I1) => push_display(out, *value != 0),
        // MLIR takes a number without a type as 64 bits wide.
        Attribute::Int(value, ElemType::I64) => push_display(out, value),
        Attribute::Int(value, elem) => push_display(out, format_args!("{value} : {elem}")),
        Attribute::Float(value, None) => {
            push_f64(out, *value);
            out.push_str(if value.is_finite() { "" } else { " : f64" });
        }
        Attribute::Float(value, Some(elem)) => {
            push_f32(out, *value as f32);
            push_display(out, format_args!(" : {elem}"));
        }
        Attribute::Str(text) => push_quoted(out, text),
        Attribute::Array(items) => {
            out.push('[');
            push_list(out, items, |out, item| push_attribute(out, item, handles));
            out.push(']');
        }
        Attribute::Dict(entries) => push_dict(out, entries.iter(), handles),
        Attribute::I32Array(items) => push_int_array(out, ElemType::I32, items),
        Attribute::I64Array(items) => push_int_array(out, ElemType::I64, items),
        Attribute::Type(ty) => push_display(out, ty),
        Attribute::Elem(elem) => push_display(out, elem),
        Attribute::Function(ty) => push_function_type(out, ty),
        Attribute::Elements(elements) => push_elements(out, elements, handles),
        Attribute::Enum(mnemonic, case) => push_display(out, format_args!("#{mnemonic}<{case}>")),
    }
}

fn push_int_array<T: fmt::Display>(out: &mut String, elem: ElemType, items: &[T]) {
    push_display(out, format_args!("array<{elem}"));
    out.push_str(if items.is_empty() { "" } else { ": " });
    push_list(out, items, |out, item| push_display(out, item));
    out.push('>');
}

pub(super) fn push_function_type(out: &mut String, ty: &FunctionType) {
    push_types(out, &ty.inputs);
    out.push(BREAK);
    push_results(out, &ty.results);
}

/// `-> type` or `-> (types)`.
pub(super) fn push_results(out: &mut String, types: &[Type]) {
    out.push_str("-> ");
    match types {
        [one] => push_display(out, one),
        many => push_types(out, many),
    }
}

fn push_types(out: &mut String, types: &[Type]) {
    out.push('(');
    push_list(out, types, |out, ty| push_display(out, ty));
    out.push(')');
}

fn push_elements(out: &mut String, elements: &Elements, handles: &Handles) {
    let tensor = &elements.tensor;
    if let Some(name) = handles.name(elements) {
        out.push_str("dense_resource<");
        push_name(out, name);
    } else {
        out.push_str("dense<");
        push_dense(out, tensor);
    }
    push_display(out, format_args!("> : {}", tensor.ty()));
}

fn push_dense(out: &mut String, tensor: &Tensor) {
    let n = tensor.n_elements();
    if is_splat(tensor.data()) {
        push_element(out, tensor.data(), 0);
    } else if n > 0 {
        for i in 0..n {
            push_comma(out, i);
            brackets(tensor.shape(), i, || out.push('['));
            push_element(out, tensor.data(), i);
            brackets(tensor.shape(), i + 1, || out.push(']'));
        }
    }
}

/// Calls `each` once for every axis whose list begins, or has just ended, at element `index`.
fn brackets(shape: &[usize], index: usize, mut each: impl FnMut()) {
    let mut block = 1;
    for extent in shape.iter().rev() {
        block *= extent;
        if index.is_multiple_of(block) {
            each();
        }
    }
}

fn push_element(out: &mut String, data: &TensorData, index: usize) {
    match data {
        TensorData::I1(v) => push_display(out, v[index]),
        TensorData::I8(v) => push_display(out, v[index]),
        TensorData::I16(v) => push_display(out, v[index]),
        TensorData::I32(v) => push_display(out, v[index]),
        TensorData::I48(v) | TensorData::I64(v) | TensorData::Index(v) => push_display(out, v[index]),
        TensorData::F32(v) => push_f32(out, v[index]),
    }
}
