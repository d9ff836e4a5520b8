package sqlite

import (
	"encoding/binary"

	"github.com/postseal/postseal/cache"
)

// What follows reads SQLite's file format, https://www.sqlite.org/fileformat2.html
// sections 1.3 to 2.1, as far as it takes to find rows of our table in a file that
// SQLite refuses.

const (
	defaultPage = 4096 // bytes; SQLite's default, and ours
	leafTable   = 0x0d // first byte of a page of rows
	columns     = 6

	// maxPayload is the largest row: value, key, kind and the header before them.
	maxPayload = cache.MaxValue + 2*cache.MaxKey + 1024
)

// leafCells returns where the cells of a page begin, none if it is no leaf.
func leafCells(page []byte, number uint32) []int {
	head := 0
	if number == 1 {
		head = 100 // the file's own header
	}
	if page[head] != leafTable {
		return nil
	}
	count := int(binary.BigEndian.Uint16(page[head+3:]))
	if count > (len(page)-head-8)/2 {
		return nil
	}
	cells := make([]int, 0, count)
	for i := range count {
		at := int(binary.BigEndian.Uint16(page[head+8+2*i:]))
		if at >= head+8+2*count && at < len(page) {
			cells = append(cells, at)
		}
	}
	return cells
}

// row reads the cell at the given place of a page, with its overflow pages.
func (img *image) row(page []byte, at int) (row, bool) {
	size, n := varint(page[at:])
	at += n
	id, m := varint(page[min(at, len(page)):])
	at += m
	if n == 0 || m == 0 || size > maxPayload {
		return row{}, false
	}
	local, spills := localPayload(int(size), len(page))
	end := at + local
	if spills {
		end += 4
	}
	if end > len(page) {
		return row{}, false
	}
	payload := page[at : at+local : at+local]
	if spills {
		var ok bool
		if payload, ok = img.overflow(payload, int(size), binary.BigEndian.Uint32(page[at+local:])); !ok {
			return row{}, false
		}
	}
	w, ok := parseRow(payload)
	w.id = int64(id)
	return w, ok
}

// localPayload tells how much of a row stands on its page: section 1.6.
func localPayload(size, page int) (local int, spills bool) {
	most := page - 35
	if size <= most {
		return size, false
	}
	least := (page-12)*32/255 - 23
	if k := least + (size-least)%(page-4); k <= most {
		return k, true
	}
	return least, true
}

// overflow follows the chain of pages that holds the rest of a row.
func (img *image) overflow(local []byte, size int, next uint32) ([]byte, bool) {
	payload := make([]byte, 0, size)
	payload = append(payload, local...)
	for len(payload) < size { // each page adds some: no loop is endless
		if next == 0 || next > img.pages {
			return nil, false
		}
		page, err := img.page(next)
		if err != nil {
			return nil, false
		}
		next = binary.BigEndian.Uint32(page)
		payload = append(payload, page[4:min(len(page), 4+size-len(payload))]...)
	}
	return payload, true
}

// parseRow reads the format of a record: section 2.1. The columns are id (empty
// here, it is the row's number), kind, key, expires, sum and value.
func parseRow(payload []byte) (w row, ok bool) {
	headSize, n := varint(payload)
	if n == 0 || headSize > uint64(len(payload)) || headSize > 64 {
		return row{}, false
	}
	head, body := payload[n:max(int(headSize), n)], payload[headSize:]
	var types [columns]uint64
	for i := range types {
		if types[i], n = varint(head); n == 0 {
			return row{}, false
		}
		head = head[n:]
	}
	if types[0] != 0 || len(head) != 0 {
		return row{}, false
	}
	ok = true
	blob := func(t uint64) []byte {
		size := (t - 12) / 2
		if !ok || t < 12 || t%2 != 0 || size > uint64(len(body)) {
			ok = false
			return nil
		}
		b := body[:size:size]
		body = body[size:]
		return append([]byte{}, b...)
	}
	integer := func(t uint64) (v int64) {
		if t == 8 || t == 9 {
			return int64(t - 8)
		}
		sizes := [...]int{1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
		if !ok || t == 0 || t >= uint64(len(sizes)) || sizes[t] > len(body) {
			ok = false
			return 0
		}
		v = int64(int8(body[0]))
		for _, b := range body[1:sizes[t]] {
			v = v<<8 | int64(b)
		}
		body = body[sizes[t]:]
		return v
	}
	w.kind, w.key = blob(types[1]), blob(types[2])
	w.expires, w.sum = integer(types[3]), integer(types[4])
	w.value = blob(types[5])
	return w, ok
}

// varint reads SQLite's variable-length integer: section 1.6. n is 0 when b ends
// too early.
func varint(b []byte) (v uint64, n int) {
	for i := 0; i < 9 && i < len(b); i++ {
		if i == 8 {
			return v<<8 | uint64(b[i]), 9
		}
		v = v<<7 | uint64(b[i]&0x7f)
		if b[i] < 0x80 {
			return v, i + 1
		}
	}
	return 0, 0
}
