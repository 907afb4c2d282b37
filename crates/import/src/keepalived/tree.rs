//! Makes a tree of lines: keywords with their words, and blocks in braces. Lenient as keepalived, and says where.

use super::lines::Line;
use crate::notes::Notes;
use std::rc::Rc;

/// Blocks within blocks; keepalived itself has four.
const DEPTH_MAX: usize = 16;

/// Where something was written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Place {
    pub(crate) file: Rc<str>,
    pub(crate) line: usize,
}

/// A line, or a block with what is in it.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) words: Vec<String>,
    pub(super) nodes: Vec<Node>,
    is_block: bool,
}

impl Node {
    fn new(place: &Place, words: Vec<String>, is_block: bool) -> Self {
        Self { place: place.clone(), words, nodes: Vec::new(), is_block }
    }

    pub(super) fn word(&self, place: usize) -> &str {
        self.words.get(place).map_or("", String::as_str)
    }

    pub(super) fn keyword(&self) -> &str {
        self.word(0)
    }

    pub(super) fn after(&self, place: usize) -> &[String] {
        self.words.get(place..).unwrap_or_default()
    }

    pub(super) fn text(&self) -> String {
        self.words.join(" ")
    }

    /// All words of a list in braces, each with its line; one line may have several.
    pub(super) fn all_words(&self) -> impl Iterator<Item = (&Place, &str)> {
        self.nodes
            .iter()
            .flat_map(|node| node.words.iter().map(|word| (&node.place, word.as_str())))
    }

    /// The lines in it, where several of these keywords on one line are as many lines.
    pub(super) fn lines_of(&self, keywords: &[&str]) -> Vec<Self> {
        let mut lines: Vec<Self> = Vec::new();
        for node in &self.nodes {
            if node.is_block {
                lines.push(node.clone());
                continue;
            }
            for (at, word) in node.words.iter().enumerate() {
                match lines.last_mut().filter(|_| at > 0 && !keywords.contains(&word.as_str())) {
                    Some(line) => line.words.push(word.clone()),
                    None => lines.push(Self::new(&node.place, vec![word.clone()], false)),
                }
            }
        }
        lines
    }

    /// The same, and a note for each keyword that is there twice, where the last one holds; but not of those that may be there often.
    pub(super) fn lines_once(
        &self,
        keywords: &[&str],
        may_be_often: fn(&str) -> bool,
        notes: &mut Notes,
    ) -> Vec<Self> {
        let lines = self.lines_of(keywords);
        for (at, line) in lines.iter().enumerate() {
            let keyword = line.keyword();
            let is_again = lines[..at].iter().any(|before| before.keyword() == keyword);
            if is_again && !may_be_often(keyword) {
                let said =
                    format!("`{keyword}` is there twice in {}: the last one holds", self.keyword());
                notes.say_at(&line.place, said);
            }
        }
        lines
    }
}

/// A piece of a line.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Token {
    Word(String),
    Open,
    Close,
}

pub(super) fn read(lines: &[Line], notes: &mut Notes) -> Vec<Node> {
    let mut stack: Vec<Vec<Node>> = vec![Vec::new()];
    // Braces deeper than any that mean something.
    let mut ignored = 0_usize;
    for Line { place, text } in lines {
        let mut words: Vec<String> = Vec::new();
        for token in tokens(text) {
            match token {
                Token::Word(word) => words.push(word),
                Token::Open if stack.len() > DEPTH_MAX => {
                    ignored += 1;
                    notes.say_at(place, "so many blocks within blocks are not read");
                }
                Token::Open => open(&mut stack, place, std::mem::take(&mut words)),
                Token::Close => {
                    flush(&mut stack, place, &mut words);
                    if ignored > 0 {
                        ignored -= 1;
                    } else if !close(&mut stack) {
                        notes.say_at(place, "this `}` closes nothing");
                    }
                }
            }
        }
        flush(&mut stack, place, &mut words);
    }
    if stack.len() > 1 {
        if let Some(last) = lines.last() {
            let missing = stack.len() - 1;
            notes.say_at(
                &last.place,
                format!("{missing} `}}` missing at the end: what is open ends here"),
            );
        }
        while close(&mut stack) {}
    }
    stack.pop().unwrap_or_default()
}

/// A block begins: with the words before the brace, or with the line before it.
fn open(stack: &mut Vec<Vec<Node>>, place: &Place, words: Vec<String>) {
    let Some(level) = stack.last_mut() else { return };
    match level.last_mut().filter(|last| words.is_empty() && !last.is_block) {
        Some(last) => last.is_block = true,
        None => level.push(Node::new(place, words, true)),
    }
    stack.push(Vec::new());
}

/// A block ends; false where none is open.
fn close(stack: &mut Vec<Vec<Node>>) -> bool {
    if stack.len() < 2 {
        return false;
    }
    let nodes = stack.pop().unwrap_or_default();
    if let Some(block) = stack.last_mut().and_then(|level| level.last_mut()) {
        block.nodes = nodes;
    }
    true
}

fn flush(stack: &mut [Vec<Node>], place: &Place, words: &mut Vec<String>) {
    if let (false, Some(level)) = (words.is_empty(), stack.last_mut()) {
        level.push(Node::new(place, std::mem::take(words), false));
    }
}

/// Words are separated by blanks; quotes keep blanks, and a brace within a word belongs to it, as in `${X}` and `{{ x }}`.
fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                let word = word.get_or_insert_default();
                while let Some(c) = chars.next().filter(|c| *c != '"') {
                    match c {
                        '\\' => word.extend(chars.next()),
                        c => word.push(c),
                    }
                }
            }
            '{' if chars.peek() == Some(&'{')
                || word.as_deref().is_some_and(|w| w.ends_with('$')) =>
            {
                let word = word.get_or_insert_default();
                let mut depth = 1;
                word.push('{');
                for c in chars.by_ref() {
                    word.push(c);
                    match c {
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        _ => {}
                    }
                    if depth == 0 {
                        break;
                    }
                }
            }
            '{' | '}' => {
                tokens.extend(word.take().map(Token::Word));
                tokens.push(if c == '{' { Token::Open } else { Token::Close });
            }
            c if c.is_whitespace() => tokens.extend(word.take().map(Token::Word)),
            c => word.get_or_insert_default().push(c),
        }
    }
    tokens.extend(word.map(Token::Word));
    tokens
}
