//! Two kernels in one shader: the complete text of each, the second under names of its own.
//!
//! The text of the first stays as it is, but for its entry point, which becomes a function. In the second's text every name
//! of module scope gets the prefix `second_`; its bindings are numbered behind the first's, and of an array that both read
//! there is one declaration. The entry point `pair` numbers workgroups flat: the first ones are the first kernel's.

use std::{borrow::Cow, collections::HashMap};

use kiln_kernel::{BackendError, Kernel, Pair};

use crate::{
    assemble::{self, Assembled, Choice, Facts},
    check, choose,
};

/// What stands before the second kernel's names, as in the names of [`Pair`]'s bindings.
const PREFIX: &str = "second_";

/// The complete WGSL of a pair, or why its kernels have to run apart on this device.
///
/// # Errors
/// As [`assemble::assemble`].
pub(crate) fn assemble(
    kernel: &Kernel,
    pair: &Pair,
    facts: &Facts,
) -> Result<Result<Assembled, String>, BackendError> {
    check::kernel(kernel)?;
    if let Err(reason) = buffers_suffice(kernel, facts) {
        return Ok(Err(reason));
    }
    match choose::choose_pair(pair, facts)? {
        Ok(choices) => with_choices(kernel, pair, choices, facts),
        Err(reason) => Ok(Err(reason)),
    }
}

fn buffers_suffice(kernel: &Kernel, facts: &Facts) -> Result<(), String> {
    let (bindings, allowed) = (kernel.bindings().len(), facts.limits.max_storage_buffers);
    if bindings > allowed as usize {
        return Err(format!("{bindings} buffers where {allowed} are allowed"));
    }
    Ok(())
}

/// As [`assemble`], with what was chosen for its kernels, whose workgroups are of one size.
pub(crate) fn with_choices(
    kernel: &Kernel,
    pair: &Pair,
    (a, b): (Choice, Choice),
    facts: &Facts,
) -> Result<Result<Assembled, String>, BackendError> {
    if let Err(reason) = buffers_suffice(kernel, facts) {
        return Ok(Err(reason));
    }
    let first = assemble::with_choice(&pair.first, a, facts)?;
    let second = assemble::with_choice(&pair.second, b, facts)?;
    let number = first.number + second.number;
    let Ok(workgroups) = assemble::fold(kernel, number, facts) else {
        return Ok(Err(format!("{number} workgroups")));
    };
    let assembled = match join(pair, &first, &second, workgroups) {
        Ok(assembled) => assembled,
        Err(reason) => return Ok(Err(reason)),
    };
    let (bytes, allowed) = (workgroup_bytes(&assembled)?, facts.limits.workgroup_memory_bytes);
    if bytes > allowed {
        return Ok(Err(format!("{bytes} bytes of workgroup memory where {allowed} are allowed")));
    }
    Ok(Ok(assembled))
}

/// Both texts and the entry point that calls them.
fn join(
    pair: &Pair,
    first: &Assembled,
    second: &Assembled,
    workgroups: [u32; 3],
) -> Result<Assembled, String> {
    let call = entry_call(&first.wgsl, first.entry, "", "number")?;
    let other = entry_call(&second.wgsl, second.entry, PREFIX, "number - WORKGROUPS")?;

    let mut wgsl = plain_functions(&first.wgsl);
    let mut parts = first.parts.clone();
    let start = wgsl.lines().count();
    parts.push((Cow::Borrowed("prelude of the second"), start + 1));
    parts.extend(second.parts.iter().map(|(file, line)| (file.clone(), start + line)));
    wgsl.push_str(&renamed(&rebound(pair, &plain_functions(&second.wgsl)), &second_names(pair, second)));

    parts.push((Cow::Borrowed("pair"), wgsl.lines().count() + 1));
    let width = workgroups[0];
    wgsl.push_str(&format!(
        "@compute @workgroup_size(WORKGROUP_X, WORKGROUP_Y, WORKGROUP_Z)
fn pair(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {{
    let number = group.x + group.y * {width}u;
    if (number < WORKGROUPS) {{
        {call}
    }} else if (number - WORKGROUPS < {PREFIX}WORKGROUPS) {{
        {other}
    }}
}}
"
    ));
    Ok(Assembled {
        wgsl,
        entry: "pair",
        variant: format!("{} | {}", first.variant, second.variant),
        workgroup_size: first.workgroup_size,
        workgroups,
        number: first.number + second.number,
        parts,
    })
}

/// The entry points' text as plain functions, line for line.
fn plain_functions(wgsl: &str) -> String {
    let mut out = String::with_capacity(wgsl.len());
    for line in wgsl.lines() {
        if !line.starts_with("@compute") {
            out.push_str(
                &line.replace("@builtin(workgroup_id) ", "").replace("@builtin(local_invocation_index) ", ""),
            );
        }
        out.push('\n');
    }
    out
}

/// The call of an entry point that has become a function, as workgroup `number` of its own grid.
fn entry_call(wgsl: &str, entry: &str, prefix: &str, number: &str) -> Result<String, String> {
    let start = format!("fn {entry}(");
    let parameters = wgsl
        .split_once(start.as_str())
        .and_then(|(_, rest)| rest.split('{').next())
        .ok_or_else(|| format!("{entry} has no entry point"))?;
    let mut arguments = Vec::new();
    for parameter in parameters.split("@builtin(").skip(1) {
        arguments.push(match parameter.split(')').next() {
            Some("workgroup_id") => {
                format!("vec3(({number}) % {prefix}GRID_WIDTH, ({number}) / {prefix}GRID_WIDTH, 0u)")
            }
            Some("local_invocation_index") => "local".to_owned(),
            _ => return Err(format!("{entry} has inputs of its own")),
        });
    }
    Ok(format!("{prefix}{entry}({});", arguments.join(", ")))
}

/// The second text with its bindings numbered as the pair's, and without those of the first. Each is declared on one line.
fn rebound(pair: &Pair, wgsl: &str) -> String {
    const START: &str = "@group(0) @binding(";
    let numbers = pair.second_bindings();
    let all = pair.first.bindings().len() + numbers.len();
    let mut out = String::with_capacity(wgsl.len());
    for line in wgsl.lines() {
        let declared = line.strip_prefix(START).and_then(|rest| rest.split_once(')'));
        match declared.and_then(|(number, rest)| Some((number.parse::<usize>().ok()?, rest))) {
            None => out.push_str(line),
            // A file with several entry points may declare what this one does not use.
            Some((unused, rest)) if unused >= numbers.len() => {
                out.push_str(&format!("{START}{}){rest}", all + unused));
            }
            Some((number, rest)) => {
                if !pair.shared.iter().any(|s| s.0 == number) {
                    out.push_str(&format!("{START}{}){rest}", numbers[number]));
                }
            }
        }
        out.push('\n');
    }
    out
}

/// What the second's names of module scope are called in the pair.
fn second_names(pair: &Pair, second: &Assembled) -> HashMap<String, String> {
    let mut names: HashMap<String, String> =
        declared(&second.wgsl).into_iter().map(|name| (name.to_owned(), format!("{PREFIX}{name}"))).collect();
    let (of_first, of_second) = (pair.first.bindings(), pair.second.bindings());
    for &(i, j) in &pair.shared {
        names.insert(of_second[i].name.to_string(), of_first[j].name.to_string());
    }
    names
}

/// A piece of WGSL.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Token<'a> {
    /// An identifier or a keyword.
    Word(&'a str),
    /// One character of punctuation.
    Mark(&'a str),
    /// A number, a comment, white space.
    Rest(&'a str),
}

/// Cuts a text into tokens that together are the text.
fn tokens(text: &str) -> Vec<Token<'_>> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let up_to = |end: Option<usize>| end.unwrap_or(rest.len());
        let (len, is_rest) = if rest.starts_with("//") {
            (up_to(rest.find('\n')), true)
        } else if rest.starts_with("/*") {
            // Kiln nests none
            (up_to(rest.find("*/").map(|i| i + 2)), true)
        } else if c.is_whitespace() {
            (up_to(rest.find(|c: char| !c.is_whitespace())), true)
        } else if c.is_ascii_digit() {
            (up_to(rest.find(|c: char| !is_word(c) && c != '.')), true)
        } else if is_word(c) {
            (up_to(rest.find(|c: char| !is_word(c))), false)
        } else {
            (c.len_utf8(), false)
        };
        let (piece, behind) = rest.split_at(len);
        found.push(match (is_rest, is_word(c)) {
            (true, _) => Token::Rest(piece),
            (false, true) => Token::Word(piece),
            (false, false) => Token::Mark(piece),
        });
        rest = behind;
    }
    found
}

/// The names that a text declares outside of functions and structures.
fn declared(text: &str) -> Vec<&str> {
    let tokens: Vec<_> = tokens(text).into_iter().filter(|t| !matches!(t, Token::Rest(_))).collect();
    let mut names = Vec::new();
    let mut depth = 0usize;
    for (i, token) in tokens.iter().enumerate() {
        match token {
            Token::Mark("{") => depth += 1,
            Token::Mark("}") => depth = depth.saturating_sub(1),
            Token::Word("const" | "override" | "fn" | "struct" | "alias" | "var") if depth == 0 => {
                // the address space of a variable stands before its name
                let template = if tokens.get(i + 1) == Some(&Token::Mark("<")) {
                    tokens[i..].iter().position(|t| *t == Token::Mark(">")).unwrap_or(0)
                } else {
                    0
                };
                if let Some(Token::Word(name)) = tokens.get(i + template + 1) {
                    names.push(*name);
                }
            }
            _ => {}
        }
    }
    names
}

/// The text with these words changed wherever they are names of module scope: not behind a `.`, not in attributes, not as
/// the names of a structure's members.
fn renamed(text: &str, names: &HashMap<String, String>) -> String {
    let all = tokens(text);
    let visible = |t: &&Token<'_>| !matches!(t, Token::Rest(_));
    let mut out = String::with_capacity(text.len() + text.len() / 4);
    let mut before = [Token::Rest(""); 3]; // the last three but for white space, the last one first
    let (mut struct_begins, mut in_struct) = (false, false);
    for (i, token) in all.iter().enumerate() {
        match *token {
            Token::Word(word) => {
                let in_attribute = before[0] == Token::Mark("@")
                    || (before[0] == Token::Mark("(") && before[1] == Token::Word("builtin"));
                let is_member = in_struct && all[i + 1..].iter().find(visible) == Some(&Token::Mark(":"));
                let stays = in_attribute || is_member || before[0] == Token::Mark(".");
                out.push_str(names.get(word).filter(|_| !stays).map_or(word, String::as_str));
                struct_begins |= word == "struct";
            }
            Token::Mark(mark) => {
                in_struct = (in_struct || (struct_begins && mark == "{")) && mark != "}";
                struct_begins &= mark != "{";
                out.push_str(mark);
            }
            Token::Rest(rest) => {
                out.push_str(rest);
                continue;
            }
        }
        before = [*token, before[0], before[1]];
    }
    out
}

/// Bytes of workgroup memory that a text declares.
pub(crate) fn workgroup_bytes(assembled: &Assembled) -> Result<u32, BackendError> {
    if !assembled.wgsl.contains("var<workgroup>") {
        return Ok(0);
    }
    let module = naga::front::wgsl::parse_str(&assembled.wgsl).map_err(|e| {
        assembled.error(e.location(&assembled.wgsl).map(|l| l.line_number as usize), e.message())
    })?;
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(module.to_ctx()).map_err(|e| assembled.error(None, &e.to_string()))?;
    let variables = module.global_variables.iter().filter(|(_, v)| v.space == naga::AddressSpace::WorkGroup);
    Ok(variables.map(|(_, v)| layouter[v.ty].size).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "const LEN: u32 = 3u; // LEN of x
struct At { x: u32, LEN: array<f32, LEN> }
alias Place = At;
@group(0) @binding(0) var<storage, read> x: array<f32>;
var<workgroup> shared_values: array<f32, LEN>;
fn at(i: u32) -> At { let y = x[i].x + 1.5e3f; const INNER = LEN; return At(i, At(i, y).LEN); }
@compute @workgroup_size(LEN)
fn run(@builtin(workgroup_id) LENGTH: vec3<u32>) { at(LENGTH.x); }
";

    #[test]
    fn names_of_module_scope_are_found() {
        assert_eq!(declared(TEXT), ["LEN", "At", "Place", "x", "shared_values", "at", "run"]);
    }

    #[test]
    fn names_of_module_scope_are_changed_and_others_are_not() {
        let names = declared(TEXT).into_iter().map(|n| (n.to_owned(), format!("second_{n}"))).collect();
        let want = "const second_LEN: u32 = 3u; // LEN of x
struct second_At { x: u32, LEN: array<f32, second_LEN> }
alias second_Place = second_At;
@group(0) @binding(0) var<storage, read> second_x: array<f32>;
var<workgroup> second_shared_values: array<f32, second_LEN>;
fn second_at(i: u32) -> second_At { let y = second_x[i].x + 1.5e3f; const INNER = second_LEN; return second_At(i, second_At(i, y).LEN); }
@compute @workgroup_size(second_LEN)
fn second_run(@builtin(workgroup_id) LENGTH: vec3<u32>) { second_at(LENGTH.x); }
";
        assert_eq!(renamed(TEXT, &names), want);
    }

    #[test]
    fn entry_points_become_functions() {
        assert!(plain_functions(TEXT).ends_with("\n\nfn run(LENGTH: vec3<u32>) { at(LENGTH.x); }\n"));
        assert_eq!(plain_functions(TEXT).lines().count(), TEXT.lines().count());
        assert_eq!(
            entry_call(TEXT, "run", "second_", "n").unwrap(),
            "second_run(vec3((n) % second_GRID_WIDTH, (n) / second_GRID_WIDTH, 0u));"
        );
        assert!(entry_call("fn run(@builtin(subgroup_size) s: u32) {", "run", "", "n").is_err());
    }
}
