//! The Markdown files of this project, as far as something in them can be true or not.

use std::fs;
use std::path::{Path, PathBuf};

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use crate::parts;

/// What a Markdown file holds that can be true or not.
pub struct Document {
    /// Where it is.
    pub path: PathBuf,
    /// The same, from the workspace on.
    pub name: String,
    /// In order.
    pub blocks: Vec<Block>,
    /// Words in backquotes.
    pub spans: Vec<String>,
    /// Their targets.
    pub links: Vec<String>,
    /// The headings, as links name them.
    pub anchors: Vec<String>,
}

/// A fenced block.
#[derive(Default)]
pub struct Block {
    /// After the fence.
    pub language: String,
    /// Its lines.
    pub text: String,
    /// The HTML comment right before it.
    pub note: String,
}

impl Block {
    /// The file that it shows: `<!-- file: NAME -->` before it, or a comment with the name as its first line.
    pub fn file_name(&self) -> Option<&str> {
        let first = self.text.lines().next().unwrap_or_default();
        let name = self.note.strip_prefix("file: ").or_else(|| first.strip_prefix("# "))?;
        let fits = match self.language.as_str() {
            "yaml" => name.ends_with(".yaml"),
            "json" => name.ends_with(".jsonl"),
            _ => false,
        };
        (fits && !name.contains([' ', '/'])).then_some(name)
    }

    /// A whole one, which neither a part nor a file of fixtures is.
    pub fn is_configuration(&self) -> bool {
        let fixtures = self.file_name().is_some_and(|name| name.ends_with(".test.yaml"));
        self.language == "yaml" && !self.is_part() && !fixtures
    }

    /// `<!-- part -->` before it: not a configuration by itself.
    pub fn is_part(&self) -> bool {
        self.note == "part"
    }

    /// `<!-- run by: FILE -->` before it: its commands need more than a folder and a binary, which that test has.
    pub fn run_by(&self) -> Option<&str> {
        self.note.strip_prefix("run by: ")
    }

    /// The lines that run keyferry, with the continuations of each.
    pub fn commands(&self) -> impl Iterator<Item = String> {
        let is_shell = ["sh", "console"].contains(&self.language.as_str());
        let text =
            if is_shell && self.run_by().is_none() { self.text.replace("\\\n", " ") } else { String::new() };
        let lines: Vec<String> = text.lines().filter_map(keyferry_command).map(str::to_owned).collect();
        lines.into_iter()
    }
}

/// The line without its prompt, if it is keyferry that it runs.
pub fn keyferry_command(line: &str) -> Option<&str> {
    let line = line.strip_prefix("$ ").unwrap_or(line).trim();
    let mut rest = line;
    while let Some((name, value)) = rest.split_once('=')
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    {
        let end = match value.chars().next() {
            Some(quote @ ('\'' | '"')) => value[1..].find(quote)? + 2,
            _ => value.find(' ')?,
        };
        rest = value[end..].trim_start();
    }
    (rest == "keyferry" || rest.starts_with("keyferry ")).then_some(line)
}

impl Document {
    /// Reads it.
    ///
    /// # Panics
    /// When there is none.
    pub fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let name = path.strip_prefix(parts::workspace()).unwrap_or(path).display().to_string();
        let mut document = Self {
            path: path.to_owned(),
            name,
            blocks: Vec::new(),
            spans: Vec::new(),
            links: Vec::new(),
            anchors: Vec::new(),
        };
        let mut note = String::new();
        let mut block: Option<Block> = None;
        let mut heading: Option<String> = None;
        for event in Parser::new_ext(&text, Options::ENABLE_TABLES) {
            match event {
                Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(language))) => {
                    let note = std::mem::take(&mut note);
                    block = Some(Block { language: language.into_string(), note, ..Block::default() });
                }
                Event::End(TagEnd::CodeBlock) => document.blocks.extend(block.take()),
                Event::Start(Tag::Heading { .. }) => {
                    heading = Some(String::new());
                }
                Event::End(TagEnd::Heading(_)) => {
                    document.anchors.extend(heading.take().map(|text| anchor(&text)));
                }
                Event::Start(Tag::Link { dest_url, .. }) => document.links.push(dest_url.into_string()),
                Event::Html(html) => {
                    let comment = html.trim().strip_prefix("<!--").and_then(|rest| rest.strip_suffix("-->"));
                    note = comment.unwrap_or_default().trim().to_owned();
                }
                Event::Start(Tag::Paragraph) => note.clear(),
                Event::Text(text) => match (&mut block, &mut heading) {
                    (Some(block), _) => block.text.push_str(&text),
                    (None, Some(heading)) => heading.push_str(&text),
                    (None, None) => {}
                },
                Event::Code(code) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&code);
                    }
                    document.spans.push(code.into_string());
                }
                _ => {}
            }
        }
        document
    }
}

/// A heading as GitHub links to it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The Markdown files of the workspace's own folder and of `docs/`, at every depth.
///
/// # Panics
/// When they cannot be read.
pub fn documents() -> Vec<Document> {
    let is_markdown = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md");
    let entries = |folder: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        entries.map(|entry| entry.expect("an entry of a folder").path()).collect()
    };
    let mut paths: Vec<PathBuf> = entries(parts::workspace());
    let mut folders = vec![parts::workspace().join("docs")];
    while let Some(folder) = folders.pop() {
        let (inner, files): (Vec<_>, Vec<_>) = entries(&folder).into_iter().partition(|path| path.is_dir());
        folders.extend(inner);
        paths.extend(files);
    }
    paths.retain(is_markdown);
    paths.sort();
    assert!(paths.len() >= 10, "README.md and docs/ are there: {paths:?}");
    paths.iter().map(|path| Document::read(path)).collect()
}
