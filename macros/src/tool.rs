//! `#[tool]`: an async function becomes a unit struct that implements `Tool`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::spanned::Spanned;
use syn::{
    Attribute, Error, Expr, ExprLit, FnArg, GenericArgument, ItemFn, Lit, Meta, PathArguments,
    Result, ReturnType, Type,
};

pub(crate) fn expand(arguments: &TokenStream, item: TokenStream) -> Result<TokenStream> {
    if !arguments.is_empty() {
        return Err(Error::new(arguments.span(), "#[tool] takes no arguments"));
    }
    let function: ItemFn = syn::parse2(item)?;
    let signature = &function.sig;
    if signature.asyncness.is_none() {
        return Err(Error::new(signature.fn_token.span, "a tool is an async fn"));
    }
    if !signature.generics.params.is_empty() {
        return Err(Error::new(signature.generics.span(), "a tool has no generic parameters"));
    }
    let description = description(&function.attrs);
    if description.is_empty() {
        let problem = "a tool needs a doc comment: it's the description that callers decide by";
        return Err(Error::new(signature.ident.span(), problem));
    }
    let mut inputs = signature.inputs.iter().map(input_type);
    let Some(argument) = inputs.next().transpose()? else {
        let problem = "a tool takes a struct of arguments, which may be empty";
        return Err(Error::new(signature.paren_token.span.join(), problem));
    };
    let context = inputs.next().transpose()?;
    if let Some(surplus) = inputs.next().transpose()? {
        return Err(Error::new(surplus.span(), "a tool takes its arguments and a ToolContext"));
    }
    let output = output_type(&signature.output, signature.fn_token.span)?;
    let call = if context.is_some() {
        quote! { call(arguments, context) }
    } else {
        quote! { call(arguments) }
    };

    let (attributes, visibility) = (&function.attrs, &function.vis);
    let (ident, name) = (&signature.ident, signature.ident.to_string());
    let (inputs, returns, body) = (&signature.inputs, &signature.output, &function.block);
    Ok(quote! {
        #(#attributes)*
        #[allow(non_camel_case_types, reason = "the tool keeps the function's name")]
        #[derive(Clone, Copy, Debug)]
        #visibility struct #ident;

        impl ::neuroflow::Tool for #ident {
            type Arguments = #argument;
            type Output = #output;

            fn name(&self) -> &'static str {
                #name
            }

            fn description(&self) -> &'static str {
                #description
            }

            async fn call(
                &self,
                arguments: Self::Arguments,
                context: ::neuroflow::ToolContext,
            ) -> ::std::result::Result<Self::Output, ::neuroflow::ToolError> {
                async fn call(#inputs) #returns #body
                let _ = &context;
                #call.await.map_err(::std::convert::Into::into)
            }
        }
    })
}

/// The doc comment as one text.
fn description(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
            Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value().trim().to_owned()),
            _ => None,
        },
        _ => None,
    });
    lines.collect::<Vec<_>>().join("\n").trim().to_owned()
}

fn input_type(input: &FnArg) -> Result<&Type> {
    match input {
        FnArg::Typed(input) => Ok(&input.ty),
        FnArg::Receiver(receiver) => {
            Err(Error::new(receiver.span(), "a tool is a free function, without self"))
        }
    }
}

/// The `T` of `Result<T, _>`.
fn output_type(returns: &ReturnType, function: proc_macro2::Span) -> Result<&Type> {
    let problem = "a tool returns a Result of something serializable and an error";
    let ReturnType::Type(_, returned) = returns else {
        return Err(Error::new(function, problem));
    };
    if let Type::Path(path) = &**returned
        && let Some(last) = path.path.segments.last()
        && last.ident == "Result"
        && let PathArguments::AngleBracketed(arguments) = &last.arguments
        && let Some(GenericArgument::Type(output)) = arguments.args.first()
    {
        return Ok(output);
    }
    Err(Error::new(returned.span(), problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(item: TokenStream) -> String {
        expand(&TokenStream::new(), item).unwrap_err().to_string()
    }

    #[test]
    fn says_what_a_tool_needs() {
        assert!(refusal(quote! { fn f(a: A) -> Result<u8, E> {} }).contains("async"));
        assert!(refusal(quote! { async fn f(a: A) -> Result<u8, E> {} }).contains("doc comment"));
        let documented = |rest: TokenStream| quote! { #[doc = " Does it."] #rest };
        assert!(
            refusal(documented(quote! { async fn f() -> Result<u8, E> {} })).contains("struct")
        );
        assert!(refusal(documented(quote! { async fn f(a: A) -> u8 {} })).contains("Result"));
        assert!(
            refusal(documented(quote! { async fn f(&self) -> u8 {} })).contains("free function")
        );
        let three = documented(quote! { async fn f(a: A, b: B, c: C) -> Result<u8, E> {} });
        assert!(refusal(three).contains("ToolContext"));
    }

    #[test]
    fn the_doc_comment_is_the_description() {
        let item = quote! {
            #[doc = " Adds two numbers."]
            #[doc = " Carefully."]
            async fn add(sum: Sum) -> Result<i64, ToolError> { Ok(sum.a + sum.b) }
        };
        let expanded = expand(&TokenStream::new(), item).unwrap().to_string();
        assert!(expanded.contains(r#""Adds two numbers.\nCarefully.""#), "{expanded}");
        assert!(expanded.contains("struct add"), "{expanded}");
    }
}
