//! Sugar over the public traits of `neuroflow`: everything here can be written by hand.

mod tool;

use proc_macro::TokenStream;

/// Makes a tool of an `async fn`: the doc comment is its description, its name the tool's name,
/// and the first argument's type, which derives `serde::Deserialize` and `schemars::JsonSchema`,
/// the schema that calls are checked against.
///
/// The function becomes a unit struct of the same name that implements `neuroflow::Tool`. A second
/// argument, if there is one, is the `neuroflow::ToolContext`. The error type is anything that
/// turns into a `neuroflow::ToolError`.
///
/// ```ignore
/// /// Two numbers.
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// struct Sum { a: i64, b: i64 }
///
/// /// Adds two numbers.
/// #[neuroflow::tool]
/// async fn add(sum: Sum) -> Result<i64, neuroflow::ToolError> {
///     Ok(sum.a + sum.b)
/// }
/// ```
#[proc_macro_attribute]
pub fn tool(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let expanded = tool::expand(&arguments.into(), item.into());
    expanded.unwrap_or_else(|error| error.to_compile_error()).into()
}
