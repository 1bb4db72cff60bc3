//! Patches of memory blocks: lines that begin with a blank, `-` or `+`, for one block or, under `***` headers, for
//! several (api/05 §10).

use super::ToolError;

/// A change of one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BlockPatch {
    /// A new block.
    Add {
        /// Its label.
        label: String,
        /// Its value.
        value: String,
    },
    /// A block that goes.
    Delete {
        /// Its label.
        label: String,
    },
    /// A block that changes.
    Update {
        /// Its label.
        label: String,
        /// Its new label, if it gets one.
        new_label: Option<String>,
        /// What changes in its value.
        hunks: Vec<Hunk>,
    },
}

/// Lines that stand together in a block, and those that take their place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Hunk {
    old: Vec<String>,
    new: Vec<String>,
}

/// Reads a patch. One without headers is for the block `label`.
///
/// # Errors
/// A line means nothing here.
pub(super) fn read(label: &str, patch: &str) -> Result<Vec<BlockPatch>, ToolError> {
    let mut patches: Vec<BlockPatch> = Vec::new();
    for line in patch.lines() {
        if let Some(header) = line.strip_prefix("*** ") {
            read_header(header, &mut patches)?;
            continue;
        }
        if patches.is_empty() {
            patches.push(BlockPatch::Update { label: label.to_owned(), new_label: None, hunks: vec![Hunk::default()] });
        }
        match patches.last_mut() {
            Some(BlockPatch::Add { value, .. }) => {
                let added =
                    line.strip_prefix('+').ok_or_else(|| misplaced(line, "a new block has lines with '+' only"))?;
                if !value.is_empty() {
                    value.push('\n');
                }
                value.push_str(added);
            }
            Some(BlockPatch::Update { hunks, .. }) => read_line(line, hunks)?,
            Some(BlockPatch::Delete { .. }) | None if line.trim().is_empty() => {}
            Some(BlockPatch::Delete { .. }) | None => return Err(misplaced(line, "it belongs to no block")),
        }
    }
    for patch in &mut patches {
        if let BlockPatch::Update { hunks, .. } = patch {
            hunks.retain(|hunk| hunk.old != hunk.new);
        }
    }
    let does_something = |patch: &BlockPatch| match patch {
        BlockPatch::Update { new_label, hunks, .. } => new_label.is_some() || !hunks.is_empty(),
        BlockPatch::Add { .. } | BlockPatch::Delete { .. } => true,
    };
    if patches.iter().any(does_something) { Ok(patches) } else { Err(ToolError::value("The patch changes nothing.")) }
}

fn read_header(header: &str, patches: &mut Vec<BlockPatch>) -> Result<(), ToolError> {
    let named = |prefix: &str| header.strip_prefix(prefix).map(|label| label.trim().to_owned());
    if let Some(label) = named("Add Block:") {
        patches.push(BlockPatch::Add { label, value: String::new() });
    } else if let Some(label) = named("Delete Block:") {
        patches.push(BlockPatch::Delete { label });
    } else if let Some(label) = named("Update Block:") {
        patches.push(BlockPatch::Update { label, new_label: None, hunks: vec![Hunk::default()] });
    } else if let Some(label) = named("Move to:") {
        match patches.last_mut() {
            Some(BlockPatch::Update { new_label, .. }) => *new_label = Some(label),
            _ => return Err(ToolError::value("'*** Move to:' has to follow an '*** Update Block:'.")),
        }
    } else if !matches!(header.trim(), "Begin Patch" | "End Patch") {
        return Err(misplaced(header, "no such header: use Add Block, Delete Block, Update Block or Move to"));
    }
    Ok(())
}

fn read_line(line: &str, hunks: &mut Vec<Hunk>) -> Result<(), ToolError> {
    if line.starts_with("@@") {
        hunks.push(Hunk::default());
        return Ok(());
    }
    let Some(hunk) = hunks.last_mut() else { return Ok(()) };
    if let Some(added) = line.strip_prefix('+') {
        hunk.new.push(added.to_owned());
    } else if let Some(removed) = line.strip_prefix('-') {
        hunk.old.push(removed.to_owned());
    } else if line.is_empty() || line.starts_with(' ') {
        // Many models leave the blank out where nothing follows it.
        let kept = line.strip_prefix(' ').unwrap_or_default().to_owned();
        hunk.old.push(kept.clone());
        hunk.new.push(kept);
    } else {
        return Err(misplaced(line, "lines begin with a blank, '-' or '+'"));
    }
    Ok(())
}

fn misplaced(line: &str, why: &str) -> ToolError {
    ToolError::value(format!("The patch has the line {line:?}: {why}."))
}

/// A value after all hunks. What a hunk only adds goes to the end.
///
/// # Errors
/// The old lines of a hunk do not stand in the value, or more than once.
pub(super) fn apply(value: &str, hunks: &[Hunk]) -> Result<String, ToolError> {
    let mut lines: Vec<&str> = if value.is_empty() { Vec::new() } else { value.split('\n').collect() };
    for hunk in hunks {
        let length = hunk.old.len();
        let place = if length == 0 {
            lines.len()
        } else {
            let is_here = |place: &usize| lines.iter().skip(*place).take(length).eq(hunk.old.iter());
            let mut places = (0..lines.len().saturating_sub(length - 1)).filter(is_here);
            match (places.next(), places.next()) {
                (Some(place), None) => place,
                (None, _) => {
                    return Err(ToolError::value(format!("{:?} does not stand in the block.", hunk.old.join("\n"))));
                }
                (Some(_), Some(_)) => {
                    let text = hunk.old.join("\n");
                    return Err(ToolError::value(format!(
                        "{text:?} stands in the block more than once: quote more lines."
                    )));
                }
            }
        };
        lines.splice(place..place + length, hunk.new.iter().map(String::as_str));
    }
    Ok(lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patched(value: &str, patch: &str) -> Result<String, String> {
        let read = read("human", patch).map_err(|error| error.to_string())?;
        let [BlockPatch::Update { label, new_label: None, hunks }] = read.as_slice() else { panic!("{read:?}") };
        assert_eq!(label, "human");
        apply(value, hunks).map_err(|error| error.to_string())
    }

    #[test]
    fn lines_are_put_in_the_place_of_others() {
        for (value, patch, expected) in [
            ("one\ntwo\nthree", " one\n-two\n+2\n three", "one\n2\nthree"),
            ("one\ntwo", "-one", "two"),
            ("one", "+two", "one\ntwo"),
            ("", "+one\n+two", "one\ntwo"),
            ("a\n\nb", " a\n\n-b\n+c", "a\n\nc"),
            ("one\ntwo\nthree", "@@ first\n-one\n+1\n@@\n-three\n+3", "1\ntwo\n3"),
        ] {
            assert_eq!(patched(value, patch).as_deref(), Ok(expected), "{patch:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_told() {
        for (value, patch, expected) in [
            ("one", "-two", "does not stand in the block"),
            ("one\none", "-one", "more than once"),
            ("one", "one", "lines begin with a blank"),
            ("one", " one", "changes nothing"),
            ("one", "", "changes nothing"),
            ("one", "*** Rename Block: x", "no such header"),
            ("one", "*** Move to: x", "has to follow"),
        ] {
            let error = patched(value, patch).expect_err(patch);
            assert!(error.contains(expected), "{patch:?}: {error}");
        }
    }

    #[test]
    fn headers_name_several_blocks() {
        let patch = "*** Begin Patch\n*** Add Block: new\n+a\n+b\n*** Delete Block: old\n\n*** Update Block: human\n\
                     *** Move to: person\n-x\n+y\n*** End Patch";
        let hunk = Hunk { old: vec!["x".to_owned()], new: vec!["y".to_owned()] };
        let expected = [
            BlockPatch::Add { label: "new".to_owned(), value: "a\nb".to_owned() },
            BlockPatch::Delete { label: "old".to_owned() },
            BlockPatch::Update { label: "human".to_owned(), new_label: Some("person".to_owned()), hunks: vec![hunk] },
        ];
        assert_eq!(read("ignored", patch).map_err(|error| error.to_string()), Ok(expected.to_vec()));
    }
}
