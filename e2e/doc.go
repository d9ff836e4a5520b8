// Package e2e tells stories of mail with a real Postfix, a validating unbound and the real postseal: see README.md. The
// stories are in testdata, the world they happen in is package lab, which needs Linux and root.
package e2e
