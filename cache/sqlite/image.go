package sqlite

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
)

// image is a damaged database as its last commit left it: the file, and over it
// the pages in the write-ahead log.
type image struct {
	file     *os.File
	log      *os.File // nil: there is none
	logged   map[uint32]int64
	pageSize int
	pages    uint32
}

// maxPages bounds the work on a file whose size says nonsense: 64 GB.
const maxPages = 1 << 24

func newImage(file *os.File, logPath string) (*image, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	img := &image{file: file, logged: map[uint32]int64{}, pageSize: defaultPage}
	var head [18]byte
	if _, err := file.ReadAt(head[:], 0); err == nil && string(head[:16]) == "SQLite format 3\x00" {
		if size := pageSize(uint32(binary.BigEndian.Uint16(head[16:]))); size != 0 {
			img.pageSize = size
		}
	}
	if log, err := os.Open(logPath); err == nil {
		img.log = log
		img.readLog()
	}
	if img.pages == 0 { // or the last commit has told how many pages count
		img.pages = uint32(min((info.Size()+int64(img.pageSize)-1)/int64(img.pageSize), maxPages))
	}
	return img, nil
}

func (img *image) close() {
	if img.log != nil {
		img.log.Close()
	}
}

// pageSize returns the size of pages that a header means, 0 if it cannot be.
func pageSize(n uint32) int {
	if n == 1 {
		n = 65536
	}
	if n < 512 || n > 65536 || n&(n-1) != 0 {
		return 0
	}
	return int(n)
}

// page reads one page. What the file lacks of its last page is zero.
func (img *image) page(n uint32) ([]byte, error) {
	page := make([]byte, img.pageSize)
	from, at := img.file, int64(n-1)*int64(img.pageSize)
	if off, ok := img.logged[n]; ok {
		from, at = img.log, off
	}
	if _, err := from.ReadAt(page, at); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return page, nil
}

const (
	logHead   = 32 // bytes before the first frame of a write-ahead log
	frameHead = 24 // bytes before the page of a frame
)

// readLog finds the pages of the log up to its last commit, as SQLite does after
// a crash: section 4 of the file format. A log that was not begun for these
// pages is left out.
func (img *image) readLog() {
	head := make([]byte, logHead)
	if _, err := img.log.ReadAt(head, 0); err != nil {
		return
	}
	word := func(b []byte, i int) uint32 { return binary.BigEndian.Uint32(b[4*i:]) }
	var order binary.ByteOrder = binary.LittleEndian
	switch word(head, 0) {
	case 0x377f0682:
	case 0x377f0683:
		order = binary.BigEndian
	default:
		return
	}
	size := pageSize(word(head, 2))
	sum := logSum{order: order}
	sum.add(head[:24])
	if size == 0 || !sum.is(word(head, 6), word(head, 7)) {
		return
	}
	img.pageSize = size
	pending := map[uint32]int64{}
	frame := make([]byte, frameHead+size)
	for at := int64(logHead); ; at += int64(len(frame)) {
		if _, err := img.log.ReadAt(frame, at); err != nil {
			return
		}
		sum.add(frame[:8])
		sum.add(frame[frameHead:])
		number := word(frame, 0)
		if string(frame[8:16]) != string(head[16:24]) || !sum.is(word(frame, 4), word(frame, 5)) || number == 0 || number > maxPages {
			return
		}
		pending[number] = at + frameHead
		if pages := word(frame, 1); pages != 0 { // a commit, and the size of the file after it
			for n, at := range pending {
				img.logged[n] = at
			}
			clear(pending)
			img.pages = min(pages, maxPages)
		}
	}
}

// logSum is the checksum of a write-ahead log: section 4.2.
type logSum struct {
	order  binary.ByteOrder
	s0, s1 uint32
}

func (s *logSum) add(b []byte) {
	for ; len(b) >= 8; b = b[8:] {
		s.s0 += s.order.Uint32(b) + s.s1
		s.s1 += s.order.Uint32(b[4:]) + s.s0
	}
}

func (s *logSum) is(s0, s1 uint32) bool { return s.s0 == s0 && s.s1 == s1 }
