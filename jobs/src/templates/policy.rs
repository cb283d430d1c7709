//! The subset of minijinja's language that mail templates may use.
//!
//! minijinja's fuel counts instructions, but one instruction may double a text: twenty lines of
//! `{% set a = a ~ a %}` fill the memory of any worker. Invariant: no expression here produces a
//! value much larger than the values that it reads, and no statement feeds a produced value into
//! another. Therefore the only binding is the loop variable, there is no concatenation,
//! multiplication or call, and lists contain constants only. The check runs on the syntax tree,
//! whose depth `scan` has bounded, before minijinja folds constants (`"a" * 100000000` would be
//! built during compilation).

use minijinja::machinery::{
    Span,
    ast::{BinOpKind, CallArg, Expr, ForLoop, Stmt},
};

use shared::suggestion;

use super::{
    error::{TemplateError, TemplatePart},
    filters::{FILTERS, TESTS},
};

/// Maximum number of nodes in one expression.
const MAX_NODES: usize = 200;

/// Refuses everything outside of the subset, with its line.
pub(super) fn check(part: TemplatePart, root: &Stmt<'_>) -> Result<(), TemplateError> {
    Policy { part, nodes: 0 }.statement(root)
}

struct Policy {
    part: TemplatePart,
    /// Nodes of the current expression seen so far.
    nodes: usize,
}

type Verdict = Result<(), TemplateError>;

impl Policy {
    fn statements(&mut self, statements: &[Stmt<'_>]) -> Verdict {
        statements.iter().try_for_each(|statement| self.statement(statement))
    }

    fn statement(&mut self, statement: &Stmt<'_>) -> Verdict {
        match statement {
            Stmt::Template(template) => self.statements(&template.children),
            Stmt::EmitRaw(_) => Ok(()),
            Stmt::EmitExpr(emit) => self.whole_expression(&emit.expr),
            Stmt::IfCond(condition) => {
                self.whole_expression(&condition.expr)?;
                self.statements(&condition.true_body)?;
                self.statements(&condition.false_body)
            }
            Stmt::ForLoop(repeat) => self.for_loop(repeat, repeat.span()),
            Stmt::WithBlock(s) => self.refuse(s.span(), "{% with %} is not supported"),
            Stmt::Set(s) => self.refuse(s.span(), "{% set %} is not supported"),
            Stmt::SetBlock(s) => self.refuse(s.span(), "{% set %} is not supported"),
            Stmt::AutoEscape(s) => self.refuse(s.span(), "{% autoescape %} is not supported"),
            Stmt::FilterBlock(s) => self.refuse(s.span(), "{% filter %} is not supported"),
            Stmt::Do(s) => self.refuse(s.span(), "{% do %} is not supported"),
            // Statements of minijinja features that other crates may enable.
            #[allow(unreachable_patterns, reason = "the variants depend on the features of the whole build")]
            _ => Err(self.not_offered(1, "this statement is not supported".to_owned(), None)),
        }
    }

    fn for_loop(&mut self, repeat: &ForLoop<'_>, span: Span) -> Verdict {
        if repeat.recursive {
            return self.refuse(span, "a recursive loop is not supported");
        }
        self.whole_expression(&repeat.iter)?;
        if let Some(filter) = &repeat.filter_expr {
            self.whole_expression(filter)?;
        }
        self.statements(&repeat.body)?;
        self.statements(&repeat.else_body)
    }

    fn whole_expression(&mut self, expression: &Expr<'_>) -> Verdict {
        self.nodes = 0;
        self.expression(expression)
    }

    fn expression(&mut self, expression: &Expr<'_>) -> Verdict {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return self.refuse(expression.span(), "the expression is too long");
        }
        match expression {
            Expr::Var(_) | Expr::Const(_) => Ok(()),
            Expr::UnaryOp(unary) => self.expression(&unary.expr),
            Expr::BinOp(binary) => {
                self.operator(binary.op, [&binary.left, &binary.right], binary.span())?;
                self.expression(&binary.left)?;
                self.expression(&binary.right)
            }
            Expr::Compare(compare) => {
                self.expression(&compare.expr)?;
                compare.ops.iter().try_for_each(|op| self.expression(&op.expr))
            }
            Expr::IfExpr(choice) => {
                self.expression(&choice.test_expr)?;
                self.expression(&choice.true_expr)?;
                self.optional(choice.false_expr.as_ref())
            }
            Expr::GetAttr(get) => self.expression(&get.expr),
            Expr::GetItem(get) => {
                self.expression(&get.expr)?;
                self.expression(&get.subscript_expr)
            }
            Expr::Slice(slice) => {
                self.expression(&slice.expr)?;
                self.optional(slice.start.as_ref())?;
                self.optional(slice.stop.as_ref())?;
                self.optional(slice.step.as_ref())
            }
            Expr::Filter(filter) => {
                self.check_supported(filter.name, "filter", FILTERS, filter.span())?;
                self.optional(filter.expr.as_ref())?;
                self.arguments(&filter.args, filter.span())
            }
            Expr::Test(test) => {
                self.check_supported(test.name, "test", TESTS, test.span())?;
                self.expression(&test.expr)?;
                self.arguments(&test.args, test.span())
            }
            Expr::List(list) => self.constants(&list.items, list.span()),
            Expr::Tuple(tuple) => self.constants(&tuple.items, tuple.span()),
            Expr::Map(map) => self.refuse(map.span(), "a map is not supported"),
            Expr::Call(call) => self.refuse(call.span(), "calling a function is not supported"),
        }
    }

    fn optional(&mut self, expression: Option<&Expr<'_>>) -> Verdict {
        expression.map_or(Ok(()), |expression| self.expression(expression))
    }

    fn arguments(&mut self, arguments: &[CallArg<'_>], span: Span) -> Verdict {
        arguments.iter().try_for_each(|argument| match argument {
            CallArg::Pos(value) | CallArg::Kwarg(_, value) => self.expression(value),
            CallArg::PosSplat(_) | CallArg::KwargSplat(_) => self.refuse(span, "* and ** are not supported"),
        })
    }

    /// Addition is for counting (`loop.index + 1`): with a number on one side it cannot join texts
    /// or lists.
    fn operator(&self, operator: BinOpKind, sides: [&Expr<'_>; 2], span: Span) -> Verdict {
        let is_number = |side: &Expr<'_>| matches!(side, Expr::Const(constant) if constant.value.is_number());
        match operator {
            BinOpKind::Add if sides.into_iter().any(is_number) => Ok(()),
            BinOpKind::Add => self.refuse(span, "+ is supported only with a number on one side"),
            BinOpKind::Concat => self.refuse(span, "~ is not supported, write the values one after the other"),
            BinOpKind::Mul | BinOpKind::Pow => self.refuse(span, "* and ** are not supported"),
            _ => Ok(()),
        }
    }

    fn constants(&mut self, items: &[Expr<'_>], span: Span) -> Verdict {
        self.nodes += items.len();
        match items.iter().all(|item| matches!(item, Expr::Const(_))) {
            true if self.nodes <= MAX_NODES => Ok(()),
            true => self.refuse(span, "the expression is too long"),
            false => self.refuse(span, "a list may hold only constants"),
        }
    }

    fn check_supported(&self, name: &str, what: &str, offered: &[&str], span: Span) -> Verdict {
        if offered.contains(&name) {
            return Ok(());
        }
        let suggestion = suggestion::nearest(name, offered.iter().copied()).map(str::to_owned);
        Err(self.not_offered(line(span), format!("the {what} `{name}` is not supported"), suggestion))
    }

    fn refuse(&self, span: Span, what: &str) -> Verdict {
        Err(self.not_offered(line(span), what.to_owned(), None))
    }

    fn not_offered(&self, line: usize, what: String, suggestion: Option<String>) -> TemplateError {
        TemplateError::NotOffered { part: self.part, line, what, suggestion }
    }
}

fn line(span: Span) -> usize {
    usize::from(span.start_line)
}
