// Package links holds the test that every link inside this repository leads somewhere: links and pictures of Markdown files, their
// anchors, and the names of the manual's pages in code, messages and charts. Lines of prose are no wider than 120 characters.
package links
