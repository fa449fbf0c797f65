// Package keys keeps an operator's and a node's private keys, the operator's
// card and the documents that it has signed in files.
package keys
