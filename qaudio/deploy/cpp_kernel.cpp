// A quaternion convolution (3x3, padding 1) with BatchNorm, a shortcut, ReLU and 2x2 average pooling,
// by eight real convolutions of a quarter of the channels: see `qaudio.quaternion.algebra`, whose
// spread() and gather() stand here again. One pass over tiles of rows, which stay in the cache from
// the additions before the products to those after them; its vectors run along the rows, so that
// layers of few channels fill them as well.
//
// A tile's planes are stored with one column of zeros before each row, which also ends the row
// above it: places that are taken from there give sums that are left out at the end.

#if defined(_OPENMP) && defined(__clang__)
#error "Clang's OpenMP may be another than torch's, and two do not get along in one process"
#endif

#include <algorithm>
#include <cmath>
#include <new>
#include <vector>

#if defined(__AVX512F__)
enum { LANES = 16 };
#elif defined(__AVX__)
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif
#if defined(__AVX512F__) || defined(__aarch64__)  // 32 registers of vectors, else 16
enum { SUMS = 16 };
#else
enum { SUMS = 12 };
#endif
typedef float Vector __attribute__((vector_size(4 * LANES), aligned(4)));

// A value to be kept in a register: compilers would rather load it again for each of its uses.
#if defined(__AVX512F__)
#define KEEP(value) __asm__("" : "+v"(value))
#elif defined(__x86_64__)
#define KEEP(value) __asm__("" : "+x"(value))
#elif defined(__aarch64__)
#define KEEP(value) __asm__("" : "+w"(value))
#else
#define KEEP(value)
#endif

static const long CACHED = 1 << 18;  // bytes of a tile: half of a small second-level cache

// Sums over `planes` and nine taps for OUTS output channels, at COUNT vectors of places.
template <int OUTS, int COUNT>
static inline void convolve_at(const float *x, long plane, long planes, long width,
                               const float *weight, float *y, long places) {
    Vector sums[OUTS][COUNT] = {};
    for (long n = 0; n < planes; n++, x += plane) {
        const float *row = x;
        for (int line = 0; line < 3; line++, row += width) {
#pragma GCC unroll 3
            for (int tap = 0; tap < 3; tap++, weight += OUTS) {
                Vector values[COUNT];
                for (int v = 0; v < COUNT; v++) {
                    values[v] = *(const Vector *)(row + tap + v * LANES);
                    KEEP(values[v]);
                }
                for (int o = 0; o < OUTS; o++)
                    for (int v = 0; v < COUNT; v++) sums[o][v] += weight[o] * values[v];
            }
        }
    }
    for (int o = 0; o < OUTS; o++)
        for (int v = 0; v < COUNT; v++) *(Vector *)(y + o * places + v * LANES) = sums[o][v];
}

// The same at all places of a tile, a multiple of LANES.
template <int OUTS>
static void convolve(const float *x, long plane, long planes, long width, const float *weight,
                     float *y, long places) {
    const int count = SUMS / OUTS;
    long n = 0;
    for (; n + count * LANES <= places; n += count * LANES)
        convolve_at<OUTS, count>(x + n, plane, planes, width, weight, y + n, places);
    for (; n < places; n += LANES)
        convolve_at<OUTS, 1>(x + n, plane, planes, width, weight, y + n, places);
}

// The eight right factors, of one row of the four components.
static void spread(const float *w, const float *x, const float *y, const float *z, long width,
                   float *to, long apart) {
#pragma GCC ivdep
    for (long n = 0; n < width; n++) {
        const float a = w[n], b = x[n], c = y[n], d = z[n];
        to[n] = c - d;
        to[n + apart] = a + b;
        to[n + 2 * apart] = c + d;
        to[n + 3 * apart] = a - b;
        to[n + 4 * apart] = b + c;
        to[n + 5 * apart] = b - c;
        to[n + 6 * apart] = a - d;
        to[n + 7 * apart] = a + d;
    }
}

// One row of the four components of a result, of the eight products; `scale` and `shift` hold
// those of the four, and no value is below `least`.
static void gather(const float *products, long apart, const float *scale, const float *shift,
                   float least, long width, float *to, long row) {
    const float *r = products, *i = r + apart, *j = i + apart, *k = j + apart;
    const float *e = k + apart, *f = e + apart, *g = f + apart, *h = g + apart;
    const float a = scale[0], b = scale[1], c = scale[2], d = scale[3];
    const float u = shift[0], v = shift[1], w = shift[2], x = shift[3];
#pragma GCC ivdep
    for (long n = 0; n < width; n++) {
        const float p = e[n] + f[n], q = g[n] + h[n], s = e[n] - f[n], t = g[n] - h[n];
        const float first = (r[n] + (q - p)) * a + u, second = (i[n] - (q + p)) * b + v;
        const float third = (j[n] + (s + t)) * c + w, fourth = (k[n] + (s - t)) * d + x;
        to[n] = first < least ? least : first;
        to[n + row] = second < least ? least : second;
        to[n + 2 * row] = third < least ? least : third;
        to[n + 3 * row] = fourth < least ? least : fourth;
    }
}

struct Stage {
    const float *x, *weight, *scale, *shift, *shortcut;
    float *y;
    long in, out, height, width;  // channels of each component; of the input's map
    int outs, pool;
    float least;  // 0 with ReLU
    long rows;  // of a tile

    // Rows from..from + rows of one clip's map.
    void tile(long clip, long from) const {
        const long padded = width + 1, until = std::min(from + rows, height), count = until - from;
        const long places = (count * padded + LANES - 1) / LANES * LANES;
        const long plane = places + 2 * padded + 2;
        static thread_local std::vector<float> planes, products, lines;
        if ((long)planes.size() < 8 * in * plane) planes.resize(8 * in * plane);
        if ((long)products.size() < 8 * outs * places) products.resize(8 * outs * places);
        if ((long)lines.size() < 8 * width) lines.resize(8 * width);

        const float *clip_x = x + clip * 4 * in * height * width;
        for (long n = 0; n < in; n++) {
            for (long row = from - 1; row <= until; row++) {
                float *to = planes.data() + n * plane + (row - from + 1) * padded;
                for (int p = 0; p < 8; p++) {
                    float *zeros = to + p * in * plane;
                    if (row < 0 || row == height) std::fill(zeros, zeros + padded, 0.0f);
                    else zeros[0] = 0;
                    if (row == until) zeros[padded] = 0;
                }
                if (row < 0 || row == height) continue;
                const float *source = clip_x + (n * height + row) * width;
                const long component = in * height * width;
                spread(source, source + component, source + 2 * component, source + 3 * component,
                       width, to + 1, in * plane);
            }
        }
        const float *w = weight;
        for (long o = 0; o < out; o += outs) {
            for (int p = 0; p < 8; p++, w += outs * in * 9) {
                const float *source = planes.data() + p * in * plane;
                float *to = products.data() + p * outs * places;
                if (outs == 4) convolve<4>(source, plane, in, padded, w, to, places);
                else convolve<2>(source, plane, in, padded, w, to, places);
            }
            for (long n = o; n < std::min(o + outs, out); n++)
                finish(clip, n, products.data() + (n - o) * places, outs * places, from, count,
                       lines.data());
        }
    }

    // Rows of output channel n of each component.
    void finish(long clip, long n, const float *products, long apart, long from, long count,
                float *lines) const {
        const long padded = width + 1, high = height / pool, wide = width / pool;
        const float s[4] = {scale[n], scale[out + n], scale[2 * out + n], scale[3 * out + n]};
        const float t[4] = {shift[n], shift[out + n], shift[2 * out + n], shift[3 * out + n]};
        const long component = out * high * wide;
        float *to = y + (clip * 4 * out + n) * high * wide;
        if (pool == 1) {
            for (long row = 0; row < count; row++) {
                float *made = to + (from + row) * wide;
                gather(products + row * padded, apart, s, t, shortcut ? -INFINITY : least, width,
                       made, component);
                if (shortcut)
                    for (int c = 0; c < 4; c++, made += component) add(made, made - y + shortcut);
            }
            return;
        }
        for (long row = 0; row + 1 < count; row += 2) {
            gather(products + row * padded, apart, s, t, least, width, lines, width);
            gather(products + (row + 1) * padded, apart, s, t, least, width, lines + 4 * width,
                   width);
            for (int c = 0; c < 4; c++) {
                const float *above = lines + c * width, *below = above + 4 * width;
                float *mean = to + c * component + (from + row) / 2 * wide;
                for (long m = 0; m < wide; m++)
                    mean[m] = 0.25f * (above[2 * m] + above[2 * m + 1] +
                                       below[2 * m] + below[2 * m + 1]);
            }
        }
    }

    void add(float *row, const float *other) const {
#pragma GCC ivdep
        for (long n = 0; n < width; n++) {
            const float sum = row[n] + other[n];
            row[n] = sum < least ? least : sum;
        }
    }
};

extern "C" {

// Whether more than one thread is used.
int parallel() {
#ifdef _OPENMP
    return 1;
#else
    return 0;
#endif
}

// How many output channels of a component are computed together; weights are laid out for it as
// (blocks of channels, 8, in, 9, channels of the block), the last block filled with zeros.
int block_of(long out) { return out % 4 == 0 || out > 4 ? 4 : 2; }

// x (batch, 4 in, height, width) -> y (batch, 4 out, height / pool, width / pool), both contiguous,
// as is a shortcut of y's shape (pool 1), or null; scale and shift of 4 out channels; nothing empty.
// Returns 1 for want of memory, else 0.
int quaternion_stage(const float *x, const float *weight, const float *scale, const float *shift,
                     const float *shortcut, float *y, long batch, long in, long out, long height,
                     long width, int relu, int pool, int threads) {
    Stage stage = {x, weight, scale, shift, shortcut, y, in, out, height, width,
                   block_of(out), pool, relu ? 0 : -INFINITY, 0};
    // Rows of a tile: few enough for the cache and for each thread to have some tiles; enough, where
    // there are, to fill vectors. Even, for pooling.
    const long padded = width + 1, fitting = CACHED / (32 * (in + stage.outs) * padded) - 2;
    const long filling = 256 / padded + 1, lines = batch * height;
    const long most = threads == 1 ? height : (lines + 4 * threads - 1) / (4 * threads);
    const long least = std::min(filling, (lines + threads - 1) / threads);
    stage.rows = std::min(std::max(fitting, filling), std::max(most, least)) + 1;
    stage.rows -= stage.rows % 2;
    const long tiles = (height + stage.rows - 1) / stage.rows;
    int failed = 0;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1) \
    reduction(| : failed)
    for (long n = 0; n < batch * tiles; n++) {
        try {
            stage.tile(n / tiles, n % tiles * stage.rows);
        } catch (const std::bad_alloc &) {
            failed = 1;
        }
    }
    return failed;
}
}
