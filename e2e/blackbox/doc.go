// Package blackbox holds tests of the postseal binary as Postfix, a name server, a policy host and an administrator see
// it: questions over raw TCP, DNS over UDP and TCP, HTTPS under a private authority, files, signals and the command
// line. Nothing of the program is imported.
//
// The tests run again inside a network namespace of their own, where 127.0.0.0/8 and its ports 53 and 443 are free;
// that needs root. The names of the tests carry the ids of the rules that they hold the program to.
package blackbox
