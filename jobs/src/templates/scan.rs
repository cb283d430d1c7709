//! Checks the tokens in a template's tags, before anything is parsed.
//!
//! minijinja's parser, its compiler and even the drop of its syntax tree recurse once for each
//! operator, bracket, `elif` and block, so a check on the tree comes too late: a text of 5 KB
//! overflows the stack. Invariant: the tree of a source that passes has at most [`MAX_OPERATORS`] +
//! [`MAX_BRACKETS`] + [`MAX_NESTING`] levels, whatever its operators are.
//!
//! The scan also inserts a check of the budget into each loop (see `budget`), because minijinja has
//! no hook for iterations.

use minijinja::machinery::{Span, Token, Tokenizer};

use super::error::{TemplateError, TemplatePart, syntax_error};

/// Maximum number of tags in one part.
const MAX_TAGS: usize = 2_000;
/// Maximum number of tokens in one tag; a list of a hundred constants has 200.
const MAX_TOKENS: usize = 256;
/// Maximum number of operators of any kind in one tag: arithmetic, comparison, logic, filter, test,
/// attribute, item, call, list.
const MAX_OPERATORS: usize = 64;
/// Maximum number of open brackets.
const MAX_BRACKETS: usize = 16;
/// Maximum number of open blocks; each `elif` counts as one, because minijinja nests them.
const MAX_NESTING: usize = 48;
/// Maximum number of operators in one part whose cost grows with their operands and that minijinja
/// runs without a check of the budget.
const MAX_UNMETERED: usize = 500;
/// Maximum bytes of an identifier. Lead columns have at most 64.
const MAX_NAME_BYTES: usize = 128;

/// Outputs nothing, but calls the formatter, which checks the budget.
const LOOK: &str = "{{''}}";
const LOOK_TRIMMED: &str = "{{''-}}";
/// The same in a loop's condition: the length of an empty text is false.
const LOOK_IN_CONDITION: &str = " ''|length or(";

/// Checks `source` and returns it with a check of the budget inserted into each loop.
pub(super) fn scan(part: TemplatePart, source: &str) -> Result<String, TemplateError> {
    let mut tokens = Tokenizer::new(source, part.name(), false, minijinja::syntax::SyntaxConfig::default());
    let mut scan =
        Scan { part, source, tags: 0, unmetered: 0, open: Vec::new(), tag: Tag::default(), looks: Vec::new() };
    while let Some((token, span)) = tokens.next_token().map_err(|error| syntax_error(part, &error))? {
        scan.token(&token, span)?;
    }
    Ok(scan.instrumented())
}

struct Scan<'s> {
    part: TemplatePart,
    source: &'s str,
    tags: usize,
    unmetered: usize,
    /// The number of levels of each open block.
    open: Vec<usize>,
    tag: Tag,
    /// Texts to insert, with their byte offsets, ascending.
    looks: Vec<(usize, &'static str)>,
}

/// The current tag, as far as it was read.
#[derive(Default)]
struct Tag {
    is_block: bool,
    is_loop: bool,
    has_condition: bool,
    tokens: usize,
    operators: usize,
    brackets: usize,
}

type Verdict = Result<(), TemplateError>;

impl<'s> Scan<'s> {
    fn token(&mut self, token: &Token<'s>, span: Span) -> Verdict {
        match token {
            Token::VariableStart | Token::BlockStart => {
                self.tags += 1;
                self.tag = Tag { is_block: matches!(token, Token::BlockStart), ..Tag::default() };
                self.bound(self.tags, MAX_TAGS, "tags in a template", span)
            }
            Token::TemplateData(_) | Token::VariableEnd => Ok(()),
            Token::BlockEnd => {
                self.end_of_block(span);
                Ok(())
            }
            token => self.inside(token, span),
        }
    }

    fn inside(&mut self, token: &Token<'s>, span: Span) -> Verdict {
        self.tag.tokens += 1;
        self.bound(self.tag.tokens, MAX_TOKENS, "names, values and signs in a tag", span)?;
        if let Token::Ident(name) = token {
            self.bound(name.len(), MAX_NAME_BYTES, "bytes in a name", span)?;
            if self.tag.is_block && self.tag.tokens == 1 {
                return self.statement(name, span);
            }
            self.condition(name, span);
        }
        match token {
            Token::ParenOpen | Token::BracketOpen | Token::BraceOpen => self.tag.brackets += 1,
            Token::ParenClose | Token::BracketClose | Token::BraceClose => {
                self.tag.brackets = self.tag.brackets.saturating_sub(1);
            }
            _ => {}
        }
        self.bound(self.tag.brackets, MAX_BRACKETS, "brackets in brackets", span)?;
        self.tag.operators += usize::from(is_operator(token));
        self.unmetered += usize::from(is_unmetered(token));
        self.bound(self.tag.operators, MAX_OPERATORS, "operators in a tag", span)?;
        self.bound(self.unmetered, MAX_UNMETERED, "comparisons and calculations in a template", span)
    }

    fn statement(&mut self, name: &str, span: Span) -> Verdict {
        match name {
            "if" | "for" => {
                self.tag.is_loop = name == "for";
                self.open.push(1);
            }
            "elif" => {
                if let Some(levels) = self.open.last_mut() {
                    *levels += 1;
                }
            }
            // A mismatched one is a syntax error that stops the parser.
            "endif" | "endfor" => {
                self.open.pop();
            }
            "else" => {}
            other => return self.refuse(format!("{{% {other} %}} is not supported"), span),
        }
        self.bound(self.open.iter().sum(), MAX_NESTING, "blocks and `elif`s in blocks", span)
    }

    /// The first `if` of a loop's tag outside of brackets starts its condition.
    fn condition(&mut self, name: &str, span: Span) {
        if name == "if" && self.tag.is_loop && !self.tag.has_condition && self.tag.brackets == 0 {
            self.tag.has_condition = true;
            self.look(span.end_offset, LOOK_IN_CONDITION);
        }
    }

    fn end_of_block(&mut self, span: Span) {
        if !self.tag.is_loop {
            return;
        }
        if self.tag.has_condition {
            self.look(span.start_offset, ")");
        }
        let trims = self.source.get(span.start_offset as usize..).is_some_and(|rest| rest.starts_with('-'));
        self.look(span.end_offset, if trims { LOOK_TRIMMED } else { LOOK });
    }

    fn look(&mut self, offset: u32, text: &'static str) {
        self.looks.push((offset as usize, text));
    }

    fn instrumented(&self) -> String {
        let mut instrumented = String::with_capacity(self.source.len() + 24 * self.looks.len());
        let mut from = 0;
        for &(offset, text) in &self.looks {
            instrumented.push_str(&self.source[from..offset]);
            instrumented.push_str(text);
            from = offset;
        }
        instrumented.push_str(&self.source[from..]);
        instrumented
    }

    fn bound(&self, count: usize, max: usize, what: &str, span: Span) -> Verdict {
        if count <= max { Ok(()) } else { self.refuse(format!("more than {max} {what} are not supported"), span) }
    }

    fn refuse(&self, what: String, span: Span) -> Verdict {
        let line = usize::from(span.start_line);
        Err(TemplateError::NotOffered { part: self.part, line, what, suggestion: None })
    }
}

/// Tokens that may make the tree one level deeper.
fn is_operator(token: &Token<'_>) -> bool {
    match token {
        Token::Ident(name) => matches!(*name, "not" | "and" | "or" | "is" | "in" | "if" | "else"),
        Token::Pipe | Token::Dot | Token::ParenOpen | Token::BraceOpen | Token::Assign => true,
        token => is_unmetered(token),
    }
}

/// Operators that minijinja computes itself, at a cost that grows with the operands.
fn is_unmetered(token: &Token<'_>) -> bool {
    match token {
        Token::Ident(name) => *name == "in",
        Token::Plus
        | Token::Minus
        | Token::Mul
        | Token::Div
        | Token::FloorDiv
        | Token::Mod
        | Token::Pow
        | Token::Tilde
        | Token::Eq
        | Token::Ne
        | Token::Lt
        | Token::Lte
        | Token::Gt
        | Token::Gte
        | Token::BracketOpen => true,
        _ => false,
    }
}
