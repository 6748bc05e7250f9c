//! Just enough of Rust's grammar to tell code from comments and strings.

/// The code of a source text: comments, and what stands inside quotes, are blanks. Lines stay where they were.
pub fn code(text: &str) -> String {
    let mut scanner = Scanner { left: text, out: String::with_capacity(text.len()) };
    while let Some(first) = scanner.left.chars().next() {
        scanner.step(first);
    }
    scanner.out
}

/// Places of `word` in `code` where it is a word of its own: byte offsets.
pub fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = code[..*at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !before.is_some_and(part) && !after.is_some_and(part)
    })
}

/// Number of the line, from 1, in which byte `at` lies.
pub fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|b| **b == b'\n').count() + 1
}

struct Scanner<'a> {
    left: &'a str,
    out: String,
}

impl Scanner<'_> {
    fn step(&mut self, first: char) {
        if self.left.starts_with("//") {
            let end = self.left.find('\n').unwrap_or(self.left.len());
            return self.blank(end);
        }
        if self.left.starts_with("/*") {
            return self.blank(block_comment(self.left));
        }
        if first == '"' {
            return self.blank_inside(1, quoted(&self.left[1..], '"') + 1);
        }
        if let Some((opening, length)) = raw_string(self.left)
            && !self.out.ends_with(|c: char| c.is_alphanumeric() || c == '_')
        {
            return self.blank_inside(opening, length);
        }
        if first == '\'' && is_char_literal(self.left) {
            return self.blank_inside(1, quoted(&self.left[1..], '\'') + 1);
        }
        self.keep(first.len_utf8());
    }

    fn keep(&mut self, bytes: usize) {
        self.out.push_str(&self.left[..bytes]);
        self.left = &self.left[bytes..];
    }

    /// Blanks as many bytes, so that offsets stay true as well.
    fn blank(&mut self, bytes: usize) {
        for byte in self.left[..bytes].bytes() {
            self.out.push(if byte == b'\n' { '\n' } else { ' ' });
        }
        self.left = &self.left[bytes..];
    }

    /// Keeps `opening` bytes and the last one; blanks what is between.
    fn blank_inside(&mut self, opening: usize, length: usize) {
        self.keep(opening);
        self.blank((length - opening).saturating_sub(1));
        if length > opening {
            self.keep(1.min(self.left.len()));
        }
    }
}

/// Bytes of a block comment, nested ones included.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    let bytes = text.as_bytes();
    while at < bytes.len() {
        match &bytes[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    bytes.len()
}

/// Bytes up to and with the closing quote, past escapes.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Opening and whole length of a raw string that begins here.
fn raw_string(text: &str) -> Option<(usize, usize)> {
    let after = text.strip_prefix("br").or_else(|| text.strip_prefix("cr")).or_else(|| text.strip_prefix('r'))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    after[hashes..].strip_prefix('"')?;
    let opening = text.len() - after.len() + hashes + 1;
    let closing = format!("\"{}", "#".repeat(hashes));
    let length = text[opening..].find(&closing).map_or(text.len(), |at| opening + at + closing.len());
    Some((opening, length))
}

/// Tells `'a'` from the lifetime `'a`.
fn is_char_literal(text: &str) -> bool {
    let mut chars = text.chars().skip(1);
    match chars.next() {
        Some('\\') => true,
        Some(_) => chars.next() == Some('\''),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_strings_go_and_code_and_lines_stay() {
        let text = "let a = \"unsafe { \\\" }\"; // unsafe\n/* unsafe /* unsafe */\n unsafe */ unsafe {}\n";
        let code = code(text);
        assert_eq!(code.len(), text.len());
        assert_eq!(words(&code, "unsafe").count(), 1);
        let at = words(&code, "unsafe").next().unwrap();
        assert_eq!(line_of(&code, at), 3);
    }

    #[test]
    fn raw_strings_characters_and_lifetimes() {
        let code = code("fn f<'a>(x: &'a str) { g('\"', r#\"un\"safe\"#, b\"unsafe\", '\\''); unsafe_name(unsafe) }");
        assert_eq!(words(&code, "unsafe").count(), 1);
        assert!(code.contains("fn f<'a>(x: &'a str)"));
        assert!(code.contains("unsafe_name(unsafe)"));
    }

    #[test]
    fn what_never_ends_ends_with_the_text() {
        for text in ["\"open", "/* open", "r#\"open", "'\\", "'", "\"", "/*", "//"] {
            assert_eq!(code(text).len(), text.len(), "{text:?}");
        }
    }
}
