package main

import (
	"context"
	"net"
	"time"

	"github.com/postseal/postseal/policy/delegation"
)

// newDelegation makes what answers about recipients.
func (d *daemon) newDelegation(c *Config) {
	d.delegated = &delegation.Server{
		Handler: newRecipients(recipients{
			config: d.config, verdict: d.engine.Recipient, nullMX: d.inspector.NullMX, count: d.book.refused, log: d.log,
			complete: func(address string) string { return d.postfix.complete(address) },
		}, d.registry),
		Deadline: c.Delegation.Deadline, Logger: d.log,
	}
	registerDelegation(d.registry, d.delegated)
}

// delegationFinish is what answers under way get after the socketmap's last one.
const delegationFinish = 2 * time.Second

// serveDelegation serves policy delegation for as long as the socketmap drains, and
// no longer: while this process runs, no other will take Postfix's connections. At a
// socket that a reload took out the server's own drain applies.
func (d *daemon) serveDelegation(ctx context.Context, l net.Listener) error {
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer context.AfterFunc(ctx, func() {
		if d.serving.Err() == nil {
			stop()
		}
	})()
	defer context.AfterFunc(d.serving, func() {
		time.AfterFunc(d.config().Socketmap.Drain+milterMargin, d.delegated.Close)
		d.answering.Lock()
		defer d.answering.Unlock()
		stop()
		time.AfterFunc(delegationFinish, d.delegated.Close)
	})()
	return d.delegated.Serve(serving, l)
}
