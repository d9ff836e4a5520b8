//go:build linux

package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path"
	"strings"
)

// Spec is what a world holds, as files tell it:
//
//	signed/ZONE, unsigned/ZONE   master files (see e2e/README.md)
//	policy/DOMAIN                the body of that domain's MTA-STS policy
//	sinks                        lines ADDRESS[:PORT] NAME[,NAME…] [behaviour…]
//	main.cf                      parameters that differ from the laboratory's
//	master.cf                    services beside the laboratory's, or in place of them
//	signer/NAME                  lines of an opendkim.conf, with its Socket: an OpenDKIM
//	postseal.toml                the same for postseal; without the file no daemon runs
//	table                        lines KEY REPLY: a stand-in for postseal, to prove that a story can fail
//	files/NAME                   a file of the world, for main.cf to name as LAB/files/NAME
type Spec struct {
	Zones    []ZoneFile
	Policies map[string]string
	Sinks    map[string]Behaviour // by ADDRESS:PORT
	MainCF   string
	MasterCF string
	Signers  map[string]string // configuration by name
	Postseal *string
	Table    *Table
	Files    map[string]string
}

// ZoneFile is one zone of a Spec.
type ZoneFile struct {
	Name, Text string
	Signed     bool
}

// probeZone is in every world: [resolver] probe asks it, as there is no signed root.
var probeZone = ZoneFile{Name: "probe.test", Signed: true}

// ReadSpec reads the files of a world.
func ReadSpec(files fs.FS) (Spec, error) {
	spec := Spec{
		Zones:    []ZoneFile{probeZone},
		Policies: make(map[string]string),
		Sinks:    make(map[string]Behaviour),
		Files:    make(map[string]string),
		Signers:  make(map[string]string),
	}
	for _, folder := range []string{"signed", "unsigned"} {
		err := eachFile(files, folder, func(name, text string) {
			spec.Zones = append(spec.Zones, ZoneFile{Name: name, Text: text, Signed: folder == "signed"})
		})
		if err != nil {
			return spec, err
		}
	}
	if err := eachFile(files, "policy", func(name, text string) { spec.Policies[name] = text }); err != nil {
		return spec, err
	}
	if err := eachFile(files, "files", func(name, text string) { spec.Files[name] = text }); err != nil {
		return spec, err
	}
	if err := eachFile(files, "signer", func(name, text string) { spec.Signers[name] = text }); err != nil {
		return spec, err
	}
	return spec, spec.readSettings(files)
}

func (spec *Spec) readSettings(files fs.FS) error {
	sinks, _, err := readOptional(files, "sinks")
	if err != nil {
		return err
	}
	if err := spec.readSinks(sinks); err != nil {
		return err
	}
	if spec.MainCF, _, err = readOptional(files, "main.cf"); err != nil {
		return err
	}
	if spec.MasterCF, _, err = readOptional(files, "master.cf"); err != nil {
		return err
	}
	if text, ok, err := readOptional(files, "postseal.toml"); err != nil {
		return err
	} else if ok {
		spec.Postseal = &text
	}
	if text, ok, err := readOptional(files, "table"); err != nil {
		return err
	} else if ok {
		spec.Table, err = ParseTable(text)
		return err
	}
	return nil
}

func (spec *Spec) readSinks(text string) error {
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		behaviour, err := ParseBehaviour(words[1:])
		if err != nil {
			return err
		}
		spec.Sinks[SinkAddress(words[0])] = behaviour
	}
	return nil
}

// SinkAddress adds port 25 to an address that names none.
func SinkAddress(word string) string {
	if strings.Contains(word, ":") {
		return word
	}
	return net.JoinHostPort(word, "25")
}

func eachFile(files fs.FS, folder string, visit func(name, text string)) error {
	entries, err := fs.ReadDir(files, folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		text, err := fs.ReadFile(files, path.Join(folder, entry.Name()))
		if err != nil {
			return fmt.Errorf("reading the world: %w", err)
		}
		visit(entry.Name(), string(text))
	}
	return nil
}

func readOptional(files fs.FS, name string) (text string, ok bool, err error) {
	data, err := fs.ReadFile(files, name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	return string(data), err == nil, err
}
