//! The difference between two texts, line by line, as a plan shows it.

/// Unchanged lines kept around a change.
const CONTEXT: usize = 1;

/// Lines before (`-`) and after (`+`), with a little of what stays (` `).
pub(crate) fn lines(before: &str, after: &str) -> Vec<String> {
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let marked = mark(&old, &new);
    let near = |index: usize| {
        let window = index.saturating_sub(CONTEXT)..(index + CONTEXT + 1).min(marked.len());
        marked[window].iter().any(|(sign, _)| *sign != ' ')
    };
    let mut shown = Vec::new();
    let mut gap = false;
    for (index, (sign, line)) in marked.iter().enumerate() {
        if near(index) {
            if gap && !shown.is_empty() {
                shown.push(" …".to_owned());
            }
            gap = false;
            shown.push(format!("{sign}{line}"));
        } else {
            gap = true;
        }
    }
    shown
}

/// Every line of both texts with its sign, by the longest common subsequence.
fn mark<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(char, &'a str)> {
    let width = new.len() + 1;
    let mut length = vec![0_u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            length[i * width + j] = if old[i] == new[j] {
                length[(i + 1) * width + j + 1] + 1
            } else {
                length[(i + 1) * width + j].max(length[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut marked = Vec::new();
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            marked.push((' ', old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && length[(i + 1) * width + j] >= length[i * width + j + 1]) {
            marked.push(('-', old[i]));
            i += 1;
        } else {
            marked.push(('+', new[j]));
            j += 1;
        }
    }
    marked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_lines_are_shown_with_their_neighbours() {
        assert_eq!(lines("a\nb\nc\nd\n", "a\nb\nx\nd\n"), [" b", "-c", "+x", " d"]);
        assert_eq!(lines("a\nb\nc\nd\ne\nf\n", "A\nb\nc\nd\ne\nF\n"), ["-a", "+A", " b", " …", " e", "-f", "+F"]);
        assert_eq!(lines("", "a\n"), ["+a"]);
        assert!(lines("a\n", "a\n").is_empty());
    }
}
